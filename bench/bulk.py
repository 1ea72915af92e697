"""What searches feel of bulk work: their p50 and p99 alone, and under six calls of `/v1/embed` with 100 texts each that never end.

    python -m bench.bulk
    python -m bench.bulk --rounds 5 --seconds 10 --clients 2 --placement ray

Serves the bundled films from a folder of its own, without the enhancer and without the gateway's cache of vectors. Each round measures
both, one after the other, so that other work of the machine meets both alike. Searches and bulk come from two processes of their own
(`bench.load`). Prints a Markdown table; the last line is the median over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.local_server import share_models
from bench.serve import load, matinee_server
from bench.tables import markdown
from bench.writes import searches
from matinee import demo
from matinee.catalogue.reader import read_items
from matinee.cli.errors import run_main

CALLS, TEXTS = 6, 100
HOME = Path(tempfile.mkdtemp(prefix="matinee-bulk-"))
SETTINGS = {
    "MATINEE_HOME": str(HOME),
    "MATINEE_CATALOGUE": "demo",
    "MATINEE_ENHANCER__ENABLED": "false",
    "MATINEE_EMBEDDER__CACHE_ENTRIES": "0",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each without and with bulk work")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each measurement")
    parser.add_argument("--clients", type=int, default=1, help="clients that search at the same time")
    parser.add_argument("--placement", choices=["process", "ray"], default="process", help="one process, or Ray Serve")
    args = parser.parse_args()
    os.environ |= SETTINGS
    share_models(HOME)
    subprocess.run([sys.executable, "-m", "train.ingest", "--demo", "--rejects", str(HOME)], check=True)
    queries, bulk = searches(HOME), _bulk_requests()
    rows = []
    with matinee_server({"MATINEE_SERVING__PLACEMENT": args.placement}) as (url, _):
        load(url, queries, clients=args.clients, seconds=3)
        for _ in range(args.rounds):
            alone = load(url, queries, clients=args.clients, seconds=args.seconds)
            with _bulk(url, bulk, args.seconds) as under_way:
                under = load(url, queries, clients=args.clients, seconds=args.seconds)
            rows.append((alone, under, under_way))
    print(_table(rows))


def _bulk_requests() -> Path:
    """A file of `bench.load`: calls of `/v1/embed` with the films' overviews."""
    overviews = [item.overview for item in read_items(str(demo.FILMS)) if item.overview]
    bulk = HOME / "bulk.jsonl"
    calls = [{"texts": overviews[start : start + TEXTS], "kind": "document"} for start in range(0, len(overviews) - TEXTS, TEXTS)]
    bulk.write_text("\n".join(json.dumps({"method": "POST", "path": "/v1/embed", "body": body}) for body in calls))
    return bulk


@contextmanager
def _bulk(url: str, requests: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """The bulk calls, from before the block to after its end; the yielded dictionary holds their summary afterwards."""
    command = [sys.executable, "-m", "bench.load", url, str(requests), "--clients", str(CALLS), "--seconds", str(seconds + 4)]
    summary: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(2)
        yield summary
        out, _ = process.communicate()
    summary |= json.loads(out)


def _table(rows: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]) -> str:
    heads = "round | search p50, p99 alone, ms | p50, p99 under bulk, ms | p99 ratio | searches not 200 | bulk texts/s | bulk not 200"
    ratios = [under["p99_ms"] / alone["p99_ms"] for alone, under, _ in rows]
    cells = []
    for number, ((alone, under, bulk), ratio) in enumerate(zip(rows, ratios, strict=True), 1):
        latencies = (f"{of['p50_ms']}, {of['p99_ms']}" for of in (alone, under))
        cells.append((number, *latencies, f"{ratio:.1f}", _bad(alone) + _bad(under), f"{bulk['rps'] * TEXTS:.0f}", _bad(bulk)))
    return f"{markdown(heads.split(' | '), cells)}\nmedian p99 ratio: {statistics.median(ratios):.1f}"


def _bad(summary: dict[str, Any]) -> int:
    return int(sum(n for status, n in summary["statuses"].items() if status != "200"))


if __name__ == "__main__":
    run_main(main)
