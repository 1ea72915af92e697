"""Snapshots of a Qdrant cluster: take them, list them, restore from them. Each node keeps its own part of a collection.

    python snapshots.py create --node http://qdrant-0:6333 --node http://qdrant-1:6333 --keep 7
    python snapshots.py list --node http://qdrant-0:6333
    python snapshots.py restore --node http://qdrant-0:6333 --node http://qdrant-1:6333 --collection films.20261101-120000 --alias films

`QDRANT_API_KEY` is the key, `QDRANT_CA` the file of the authority that signed the servers' certificates.
`restore` takes each node's newest snapshot of the collection, or its newest before `--before`.
An alias is moved only when every node has been restored. Runs with the image's Python; imports nothing of the application.
"""

import argparse
import os
import ssl
import sys
from typing import Any

import httpx

TIMEOUT_S = 3600


class QdrantNode:
    """One Qdrant node."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url, self.key = url.rstrip("/"), key
        verify = ssl.create_default_context(cafile=os.environ.get("QDRANT_CA"))
        # A node of this release: no proxy of the pod's environment leads to it.
        self._client = httpx.Client(
            base_url=self.url,
            headers={"api-key": key} if key else {},
            timeout=TIMEOUT_S,
            verify=verify,
            trust_env=False,
            # Minutes lie between the calls, and Qdrant closes a connection without calls.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        answer = self._client.request(method, path, **kwargs)
        if answer.is_error:
            raise SystemExit(f"{self.url}{path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()["result"]

    def collections(self) -> list[str]:
        return sorted(entry["name"] for entry in self.call("GET", "/collections")["collections"])

    def snapshots(self, collection: str) -> list[dict[str, Any]]:
        """Newest first."""
        listed: list[dict[str, Any]] = self.call("GET", f"/collections/{collection}/snapshots")
        return sorted(listed, key=lambda entry: str(entry["creation_time"]), reverse=True)


def log(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def create(nodes: list[QdrantNode], keep: int) -> None:
    for collection in nodes[0].collections():
        for node in nodes:
            made = node.call("POST", f"/collections/{collection}/snapshots", params={"wait": "true"})
            log(f"{node.url}: {collection}: {made['name']} ({made['size']} bytes)")
            for old in node.snapshots(collection)[keep:]:
                node.call("DELETE", f"/collections/{collection}/snapshots/{old['name']}", params={"wait": "true"})
                log(f"{node.url}: {collection}: removed {old['name']}")


def show(nodes: list[QdrantNode]) -> None:
    for node in nodes:
        for collection in node.collections():
            for entry in node.snapshots(collection):
                log(f"{node.url}\t{collection}\t{entry['creation_time']}\t{entry['name']}\t{entry['size']}")


def restore(nodes: list[QdrantNode], collection: str, before: str | None, alias: str | None) -> None:
    chosen = []
    for node in nodes:
        usable = [entry for entry in node.snapshots(collection) if before is None or str(entry["creation_time"]) < before]
        if not usable:
            raise SystemExit(f"{node.url} has no snapshot of {collection}{f' before {before}' if before else ''}: nothing was changed")
        chosen.append((node, usable[0]["name"]))
    for node, name in chosen:
        # By its address, which holds for volumes and for S3 alike. The snapshot's state wins over what other nodes hold.
        body = {"location": f"{node.url}/collections/{collection}/snapshots/{name}", "priority": "snapshot", "api_key": node.key}
        node.call("PUT", f"/collections/{collection}/snapshots/recover", params={"wait": "true"}, json=body)
        log(f"{node.url}: {collection}: restored {name}")
    if alias:
        actions = [{"create_alias": {"collection_name": collection, "alias_name": alias}}]
        nodes[0].call("POST", "/collections/aliases", json={"actions": actions})
        log(f"{alias} names {collection} now")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("create", "list", "restore"):
        command = commands.add_parser(name)
        command.add_argument("--node", action="append", required=True, help="address of a node; repeatable, name all of them")
    commands.choices["create"].add_argument("--keep", type=int, default=7, help="snapshots kept of each collection on each node")
    commands.choices["restore"].add_argument("--collection", required=True, help="name of the collection to restore")
    commands.choices["restore"].add_argument("--before", help="time as `list` prints it")
    commands.choices["restore"].add_argument("--alias", help="alias that names the collection afterwards")
    args = parser.parse_args()
    nodes = [QdrantNode(url, os.environ.get("QDRANT_API_KEY")) for url in args.node]
    if args.command == "create":
        if args.keep < 1:
            parser.error("--keep must be at least 1")
        create(nodes, args.keep)
    elif args.command == "list":
        show(nodes)
    else:
        restore(nodes, args.collection, args.before, args.alias)


if __name__ == "__main__":
    main()
