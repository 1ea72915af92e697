"""What writes cost: items a second of an NDJSON import with searches going on, what the searches feel of it, and the time of a patch.

    python -m bench.writes --items 5000 --seconds 15
    python -m bench.writes --quick

Serves the bundled films in one process, without the enhancer and without the gateway's cache of vectors. One client searches without a
pause (`bench.load`, a process of its own): first alone, then while an import of generated items runs. After it, items are patched one by
one: a number, which the encoder never sees, and the overview, which it embeds. Prints Markdown tables.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.local_server import LocalServer, temporary_home
from bench.serve import load
from bench.tables import markdown
from matinee import demo
from matinee.cli.errors import run_main
from matinee.client.http import Client
from matinee.client.items import Items
from matinee.index.imports import ImportState

WORDS = [f"{start}{end}" for start in ("har", "win", "sto", "lum", "fen", "gal", "tor", "mir") for end in ("bour", "ter", "ne", "en", "ow")]
_LOOK_S = 0.2


def lines(count: int, seed: int) -> Iterator[bytes]:
    """Items with an overview of 40 words each."""
    drawn = random.Random(seed)
    for n in range(count):
        overview = " ".join(drawn.choices(WORDS, k=40))
        yield json.dumps({"id": f"bench-{n}", "kind": "film", "title": f"Bench {n}", "overview": overview, "year": 1950 + n % 75}).encode()


def searches(folder: Path) -> Path:
    """The demo's queries, as `bench.load` takes them."""
    queries = demo.FILMS.parent / "queries" / "queries.jsonl"
    texts = [json.loads(line)["text"] for line in queries.read_text(encoding="utf-8").splitlines()]
    path = folder / "searches.jsonl"
    path.write_text("\n".join(json.dumps({"method": "POST", "path": "/v1/search", "body": {"text": text}}) for text in texts))
    return path


@contextmanager
def searching(url: str, requests: Path) -> Iterator[dict[str, Any]]:
    """Searches until the end of the block; the yielded dictionary holds their summary afterwards."""
    log = requests.with_suffix(".log")
    command = [sys.executable, "-m", "bench.load", url, str(requests), "--clients", "1", "--seconds", "3600", "--log", str(log)]
    summary: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not log.exists() or not log.stat().st_size:
            time.sleep(_LOOK_S)
        yield summary
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    summary |= json.loads(out)


def import_items(items: Items, count: int) -> tuple[ImportState, float]:
    """An import that is over, and the seconds from its sending on."""
    start = time.perf_counter()
    state = items.start_import(lines(count, seed=1))
    while not state.is_over:
        time.sleep(_LOOK_S)
        state = items.import_state(state.id)
    return state, time.perf_counter() - start


def patch_items(items: Items, count: int, *, text: bool) -> list[float]:
    """Milliseconds of each patch."""
    drawn, times = random.Random(2), []
    for n in range(count):
        patch = {"overview": " ".join(drawn.choices(WORDS, k=40))} if text else {"numbers": {"votes": n + 1}}
        start = time.perf_counter()
        items.patch(f"bench-{n}", patch)
        times.append((time.perf_counter() - start) * 1000)
    return times


def measure(server: LocalServer, count: int, seconds: float, patches: int) -> None:
    requests, items = searches(server.home), Items(Client(server.url, direct=True))
    load(server.url, requests, clients=1, seconds=min(3.0, seconds))
    alone = load(server.url, requests, clients=1, seconds=seconds)
    with searching(server.url, requests) as during:
        state, took = import_items(items, count)
    rows = (("alone", alone), (f"during an import of {count:,} items", during))
    cells = ((name, summary["p50_ms"], summary["p99_ms"], f"{summary['rps']:.0f}") for name, summary in rows)
    print(markdown(("searches", "p50, ms", "p99, ms", "searches/s"), cells))
    print(f"\nimport: {state.written:,} items in {took:.1f} s, {state.written / took:.0f} items/s")
    print(f"statuses of the searches: {alone['statuses']}, {during['statuses']}\n")
    print("| a patch | p50, ms | p95, ms |")
    print("| --- | --- | --- |")
    for name, text in (("a number", False), ("the overview", True)):
        times = patch_items(items, patches, text=text)
        print(f"| {name} | {statistics.median(times):.1f} | {statistics.quantiles(times, n=20)[-1]:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5000, help="items of the import")
    parser.add_argument("--seconds", type=float, default=15, help="seconds of searches alone")
    parser.add_argument("--patches", type=int, default=200, help="patches of each kind")
    parser.add_argument("--quick", action="store_true", help="200 items, 3 seconds and 20 patches: whether it runs")
    args = parser.parse_args()
    settings = {"MATINEE_ENHANCER__ENABLED": "false", "MATINEE_EMBEDDER__CACHE_ENTRIES": "0", "MATINEE_SERVING__PLACEMENT": "process"}
    with temporary_home(None) as home:
        server = LocalServer(home, settings)
        server.start()
        try:
            server.wait_ready()
            if args.quick:
                measure(server, 200, 3, 20)
            else:
                measure(server, args.items, args.seconds, args.patches)
        finally:
            server.stop()


if __name__ == "__main__":
    run_main(main)
