"""Requests a second and latency of the graph, beside the peer that anyone could write (`bench.peer`).

    python -m bench.serve mymoviedb.csv QUERIES.jsonl [QUERIES.jsonl ...] --out serve.json

Ingests the catalogue into a folder of its own, then starts each target in turn, `--rounds` times (A B A B, so that drift of the machine
cancels out), and loads it from a second process: (a) similar items by id, (b) text search (dense like the peer's, and the default hybrid),
(c) a cold item with the enhancer; at 1, 8 and 32 clients, and (a, b) open loop at half the closed-loop rate. `QUERIES.jsonl` (`{"text":
...}` a line) should hold more texts than are sent; the gateway's caches are off all the same. Prints two Markdown tables: the measured
values, and the ratios to the peers in the same round with their spread. All numbers go to `--out`.

`--targets` chooses from: `peer` and `peer-2` (the peer with one and with two processes), `process` (our graph in one process), `ray`
(our graph on Ray Serve), `ray-fast` (Ray Serve with `serving.fast`) and `cluster` (`ray-fast` behind HAProxy, as on a cluster). `cluster`
opens ports on every interface: measure it only on a machine that nobody else can reach.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx

from bench.local_server import share_models
from bench.tables import markdown
from matinee.cli.errors import run_main
from matinee.client import calls
from matinee.client.http import Client, ServerError
from matinee.client.server_file import read_server_file
from matinee.settings.load import load_settings

CLIENTS = (1, 8, 32)
PEERS = {"peer": 1, "peer-2": 2}
"""With one process, and with two."""
TARGETS = {
    "process": {"MATINEE_SERVING__PLACEMENT": "process"},
    "ray": {"MATINEE_SERVING__PLACEMENT": "ray"},
    "ray-fast": {"MATINEE_SERVING__PLACEMENT": "ray", "MATINEE_SERVING__FAST": "1"},
    "cluster": {"MATINEE_SERVING__PLACEMENT": "ray", "MATINEE_SERVING__FAST": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
}
DEFAULT = ["peer", "peer-2", "process", "ray"]
"""Not `cluster`: HAProxy's statistics and the replicas' ports answer on every interface. Only on a machine that nobody else can reach."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path, help="the catalogue file to ingest")
    parser.add_argument("queries", type=Path, nargs="+", help="JSONL files of query texts")
    parser.add_argument("--home", type=Path, help="reuse this folder's index instead of ingesting anew")
    parser.add_argument("--targets", nargs="+", choices=[*PEERS, *TARGETS], default=DEFAULT, help="targets to measure, in this order")
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=(cases := ["similar", "dense", "hybrid", "cold"]),
        default=cases,
        help="requests to measure; by default all",
    )
    parser.add_argument("--seconds", type=float, default=8, help="seconds of load in each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="times that each target is started and measured")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    home = args.home or Path(tempfile.mkdtemp(prefix="matinee-bench-"))
    os.environ |= {"MATINEE_HOME": str(home), "MATINEE_CATALOGUE": "bench"}
    os.environ |= {"MATINEE_EMBEDDER__CACHE_ENTRIES": "0", "MATINEE_ENHANCER__CACHE_ENTRIES": "0"}
    if not (home / "index" / "bench" / "CURRENT").exists():
        share_models(home)
        subprocess.run([sys.executable, "-m", "train.ingest", str(args.catalogue), "--kind", "film", "--rejects", str(home)], check=True)
    results: list[dict[str, Any]] = []
    for turn in range(args.rounds):
        for target in args.targets:
            with _peer(home, "cold" in args.cases, PEERS[target]) if target in PEERS else matinee_server(TARGETS[target]) as (url, ids):
                for case in args.cases:
                    requests = requests_of(case, target in PEERS, ids, args.queries, home)
                    if requests is not None:
                        rows = _measure(target, case, url, requests, args.seconds)
                        results += [row | {"round": turn} for row in rows]
    print(_table(results), _ratios(results), sep="\n\n")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


def _measure(target: str, case: str, url: str, requests: Path, seconds: float) -> list[dict[str, Any]]:
    rows = []
    load(url, requests, clients=8, seconds=3, offset=0)
    offset = 1000
    for clients in CLIENTS:
        row = {"target": target, "case": case, "clients": clients, **load(url, requests, clients=clients, seconds=seconds, offset=offset)}
        offset += int(row["requests"])
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    if case != "cold":
        rate = rows[-1]["rps"] / 2
        row = {
            "target": target,
            "case": case,
            "clients": f"open, {rate:.0f}/s",
            **load(url, requests, rate=rate, seconds=seconds, offset=offset),
        }
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def load(url: str, requests: Path, **options: float) -> dict[str, Any]:
    """What `bench.load`, in a process of its own, says."""
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, "-m", "bench.load", url, str(requests), *flags], check=True, capture_output=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def requests_of(case: str, peer: bool, ids: list[str], queries: list[Path], home: Path) -> Path | None:
    """The case's requests in the target's words, in an order fixed by a seed."""
    texts = [json.loads(line)["text"] for path in queries for line in path.read_text().splitlines()]
    random.Random(0).shuffle(texts)
    lines: list[dict[str, Any]]
    if case == "cold":
        items = [
            {"kind": "film", "title": f"Cold {n}", "year": 2020, "genres": ["Drama"], "overview": text} for n, text in enumerate(texts)
        ]
        bodies = items if peer else [{"likes": [{"item": item}], "enhance": True} for item in items]
        lines = [{"method": "POST", "path": "/cold" if peer else "/v1/recommend", "body": body} for body in bodies]
    elif not peer:
        lines = matinee_lines(case, ids, texts)
    elif case == "hybrid":
        return None
    elif case == "similar":
        lines = [{"method": "GET", "path": f"/similar/{id}"} for id in ids]
    else:
        lines = [{"method": "POST", "path": "/search", "body": {"text": text}} for text in texts]
    path = home / f"requests-{case}-{'peer' if peer else 'matinee'}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def matinee_lines(case: str, ids: list[str], texts: list[str]) -> list[dict[str, Any]]:
    """Requests for similar items, or searches in the mode `case`."""
    if case == "similar":
        return [{"method": "GET", "path": f"/v1/items/{id}/similar"} for id in ids]
    return [{"method": "POST", "path": "/v1/search", "body": {"text": text, "mode": case}} for text in texts]


@contextlib.contextmanager
def matinee_server(environment: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A server of this process's settings and `environment`: its address, and the ids of some items."""
    settings = load_settings(environ=os.environ | environment)
    server = subprocess.Popen([sys.executable, "-m", "serve", "--port", "0"], env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while (named := read_server_file(settings.server_file)) is None or named["pid"] != server.pid:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start; the lines above say why")
            time.sleep(0.5)
        # The embedder loads behind the index, and would take from what is measured.
        client = Client(named["url"], direct=True)
        while not _is_ready(client):
            time.sleep(0.5)
        yield named["url"], [item["id"] for item in client.send(calls.items(1000))["items"]]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def _is_ready(client: Client) -> bool:
    with contextlib.suppress(ServerError):
        client.send(calls.search({"text": "ready"}))
        return True
    return False


@contextlib.contextmanager
def _peer(home: Path, enhance: bool, workers: int) -> Iterator[tuple[str, list[str]]]:
    current = json.loads((home / "index" / "bench" / "CURRENT").read_text())["current"]
    copy = home / "peer"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home / "index" / "bench" / current / "shard", copy)
    # How many threads search a shard is kept with it. The peer leaves that to the engine.
    kept = copy / "edge_config.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"max_search_threads": None}))
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.peer", str(copy), "--port", str(port), "--workers", str(workers)]
    command += ["--enhance"] if enhance else []
    server = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        ids: list[str] = []
        while not ids:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the peer did not start")
            with contextlib.suppress(httpx.HTTPError):
                ids = httpx.get(f"{url}/ids", timeout=5, trust_env=False).json()
            time.sleep(0.2)
        yield url, ids
    finally:
        server.terminate()
        server.wait(30)


def _table(results: list[dict[str, Any]]) -> str:
    cells = []
    order = {case: n for n, case in enumerate(("similar", "dense", "hybrid", "cold"))}
    for row in sorted(results, key=lambda r: (order[r["case"]], str(r["clients"]).zfill(20))):
        bad = sum(n for status, n in row["statuses"].items() if status != "200")
        cells.append([*(row[name] for name in ("case", "clients", "target", "round", "rps", "p50_ms", "p99_ms")), bad])
    return markdown(("case", "clients", "target", "round", "requests/s", "p50 ms", "p99 ms", "not 200"), cells)


def _ratios(results: list[dict[str, Any]]) -> str:
    """Requests/s against each peer in the same round: the median, with the least and the greatest."""
    cells = []
    known = {(row["target"], row["case"], row["clients"], row["round"]): row for row in results}
    rounds = sorted({row["round"] for row in results})
    cases = dict.fromkeys((row["case"], row["clients"], row["target"]) for row in results if row["clients"] in CLIENTS)
    for (case, clients, target), peer in product(cases, PEERS):
        # The peer has no hybrid search: ours is judged by its dense one.
        beside = "dense" if case == "hybrid" else case
        pairs = [(known.get((target, case, clients, n)), known.get((peer, beside, clients, n))) for n in rounds]
        both = [(ours, its) for ours, its in pairs if ours and its and target != peer]
        if both:
            spreads = (_spread([ours[name] / its[name] for ours, its in both]) for name in ("rps", "p50_ms"))
            cells.append((case, clients, target, peer, *spreads))
    return markdown(("case", "clients", "target", "against", "requests/s, times", "p50, times"), cells)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    run_main(main)
