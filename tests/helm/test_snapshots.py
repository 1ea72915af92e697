"""The snapshot script against two Qdrant nodes that keep what they are told: take, prune, list, restore."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.helm.chart import CHART

SCRIPT = CHART / "files" / "snapshots.py"


class FakeNode:
    """One node's collections, snapshots and aliases, behind the routes of Qdrant that the script uses."""

    def __init__(self) -> None:
        self.collections: dict[str, list[str]] = {"films.1": ["a", "b"]}
        self.snapshots: dict[str, list[dict[str, Any]]] = {}
        self.contents: dict[str, list[str]] = {}
        self.aliases: dict[str, str] = {}
        self.keys: set[str | None] = set()
        self.url = ""

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        parts = path.partition("?")[0].strip("/").split("/")
        match method, parts:
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self.collections]}
            case "POST", ["collections", "aliases"]:
                for action in body["actions"]:
                    created = action["create_alias"]
                    self.aliases[created["alias_name"]] = created["collection_name"]
                return True
            case "GET", ["collections", name, "snapshots"]:
                return self.snapshots.get(name, [])
            case "POST", ["collections", name, "snapshots"]:
                kept = self.snapshots.setdefault(name, [])
                n = sum(len(entries) for entries in self.snapshots.values()) + len(self.contents)
                made = {"name": f"{name}-{n:04}.snapshot", "size": 10, "creation_time": f"2026-11-01T00:{n:02}:00"}
                kept.append(made)
                self.contents[str(made["name"])] = list(self.collections[name])
                return made
            case "DELETE", ["collections", name, "snapshots", snapshot]:
                self.snapshots[name] = [entry for entry in self.snapshots[name] if entry["name"] != snapshot]
                return True
            case "PUT", ["collections", name, "snapshots", "recover"]:
                assert body["priority"] == "snapshot"
                assert body["api_key"] == "secret"
                location = body["location"].removeprefix(f"{self.url}/collections/{name}/snapshots/")
                self.collections[name] = list(self.contents[location])
                return True
        raise AssertionError(f"{method} {path} is no route of the script")


@contextmanager
def serving(node: FakeNode) -> Iterator[FakeNode]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            node.keys.add(self.headers.get("api-key"))
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            content = json.dumps({"result": node.answer(self.command, self.path, body), "status": "ok"}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def nodes() -> Iterator[list[FakeNode]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving(FakeNode())) for _ in range(2)]


def snapshots(nodes: list[FakeNode], command: str, *args: str) -> subprocess.CompletedProcess[str]:
    named = [word for node in nodes for word in ("--node", node.url)]
    env = os.environ | {"QDRANT_API_KEY": "secret"}
    return subprocess.run([sys.executable, str(SCRIPT), command, *named, *args], capture_output=True, text=True, check=False, env=env)


def test_what_was_lost_comes_back_on_every_node_and_the_alias_names_it(nodes: list[FakeNode]) -> None:
    assert snapshots(nodes, "create", "--keep", "2").returncode == 0
    for node in nodes:
        node.collections["films.1"] = ["broken"]
    done = snapshots(nodes, "restore", "--collection", "films.1", "--alias", "films")
    assert done.returncode == 0, done.stderr
    assert [node.collections["films.1"] for node in nodes] == [["a", "b"], ["a", "b"]]
    assert nodes[0].aliases == {"films": "films.1"}
    assert [node.keys for node in nodes] == [{"secret"}, {"secret"}]


def test_only_the_newest_are_kept(nodes: list[FakeNode]) -> None:
    for _ in range(4):
        assert snapshots(nodes, "create", "--keep", "2").returncode == 0
    for node in nodes:
        assert len(node.snapshots["films.1"]) == 2
        assert node.snapshots["films.1"][-1]["name"] == max(node.contents)


def test_an_older_one_can_be_chosen(nodes: list[FakeNode]) -> None:
    snapshots(nodes, "create")
    for node in nodes:
        node.collections["films.1"] = ["newer"]
    snapshots(nodes, "create")
    listed = snapshots(nodes, "list").stdout.splitlines()
    assert len(listed) == 4
    newest = max(line.split("\t")[2] for line in listed)
    assert snapshots(nodes, "restore", "--collection", "films.1", "--before", newest).returncode == 0
    assert nodes[0].collections["films.1"] == ["a", "b"]


def test_nothing_is_changed_where_one_node_has_no_snapshot(nodes: list[FakeNode]) -> None:
    snapshots(nodes[:1], "create")
    nodes[0].collections["films.1"] = ["current"]
    done = snapshots(nodes, "restore", "--collection", "films.1", "--alias", "films")
    assert done.returncode != 0
    assert "nothing was changed" in done.stderr
    assert nodes[0].collections["films.1"] == ["current"]
    assert nodes[0].aliases == {}
