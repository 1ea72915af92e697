"""What a sync costs: a catalogue of generated rows in SQLite, of which a share changes between rounds, and a server of its own.

    python -m bench.sync --rows 100000 --changed 0.01
    python -m bench.sync --quick

The rows have a title and an overview of twelve words. The first index is built with drawn vectors, under the fingerprint of the embedder
that serves: no figure depends on them, and to embed all rows would take most of the time. A server in one process serves it (the embedder
of the profile `embedded`), and `train.sync` runs as a process: once with nothing changed, once compared as a whole, once followed by a
cursor. Of the changed rows a tenth is new and a tenth is gone; for the cursor those are marked as deleted. Prints a Markdown table of
seconds by stage; "all" is the process from its start to its end.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bench.local_server import LocalServer, share_models
from bench.tables import markdown
from bench.writes import WORDS
from matinee.catalogue.reader import read_items
from matinee.cli.errors import run_main
from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.models.types import Kind
from matinee.vectors import Matrix

STAGES = ("wait", "list", "read", "write", "delete")
QUERY = "SELECT id, 'film' AS kind, title, overview, year, updated, gone FROM films"
FOLLOWED = ("--cursor", "updated")


class Shop:
    """The table, with a clock of its own."""

    def __init__(self, path: Path, rows: int, seed: int) -> None:
        self.url, self._path = f"sqlite:///{path}", path
        self._random, self._clock, self._next = random.Random(seed), 1, rows
        self._run("CREATE TABLE films (id INTEGER PRIMARY KEY, title TEXT, overview TEXT, year INTEGER, updated INTEGER, gone INTEGER)")
        self._insert(range(rows))

    def export(self, path: Path) -> None:
        """All rows as JSON lines, for the first ingest."""
        with closing(sqlite3.connect(self._path)) as connection, path.open("w", encoding="utf-8") as out:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(QUERY):
                out.write(json.dumps({key: row[key] for key in row.keys() if key != "gone"}) + "\n")  # noqa: SIM118

    def change(self, share: float, *, marked: bool) -> int:
        """Change so many rows: eight of ten get another overview, one is new, one is gone; `marked`: as deleted, and still there."""
        self._clock += 1
        with closing(sqlite3.connect(self._path)) as connection:
            ids = [id for (id,) in connection.execute("SELECT id FROM films WHERE gone = 0")]
        some = max(1, round(len(ids) * share / 10))
        chosen = self._random.sample(ids, 9 * some)
        for id in chosen[some:]:
            self._run("UPDATE films SET overview = ?, updated = ? WHERE id = ?", self._text(), self._clock, id)
        gone = "UPDATE films SET gone = 1, updated = ? WHERE id = ?" if marked else "DELETE FROM films WHERE ? AND id = ?"
        for id in chosen[:some]:
            self._run(gone, self._clock, id)
        self._insert(range(self._next, self._next + some))
        self._next += some
        return 10 * some

    def _insert(self, ids: range) -> None:
        rows = [(id, f"{self._text(2).title()} {id}", self._text(), 1950 + id % 75, self._clock, 0) for id in ids]
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.executemany("INSERT INTO films VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _text(self, words: int = 12) -> str:
        return " ".join(self._random.choices(WORDS, k=words))

    def _run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(statement, values)


class DrawnVectors:
    """An encoder whose vectors mean nothing, under the name of one that serves."""

    def __init__(self, fingerprint: str, dimension: int, model: str) -> None:
        self.fingerprint, self.dimension, self.model_id = fingerprint, dimension, model
        self._random = np.random.default_rng(1)

    def encode(self, texts: Sequence[str], *, kind: Kind = "document") -> Matrix:
        drawn = self._random.standard_normal((len(texts), self.dimension)).astype(np.float32)
        unit: Matrix = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return unit


async def build(server: LocalServer, path: Path) -> None:
    """An index of all rows, for the server that runs without one."""
    embedder = server.wait_embedder()
    maker = PointMaker(DrawnVectors(embedder["fingerprint"], embedder["dimension"], embedder["model"]), "raw")
    store = open_store(server.settings)
    try:
        await Build(store, maker, server.settings.catalogue, "bench").run(read_items(str(path)))
    finally:
        await store.close()


def sync(server: LocalServer, shop: Shop, *options: str) -> dict[str, Any]:
    """The report of one process, with its time."""
    command = [
        sys.executable,
        "-m",
        "train.sync",
        "--url",
        server.url,
        "--database",
        shop.url,
        "--query",
        QUERY,
        "--deleted",
        "gone",
        *options,
    ]
    start = time.perf_counter()
    done = subprocess.run([*command, "--json"], env=server.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout)) | {"all": time.perf_counter() - start}


def run(rows: int, changed: float, home: Path) -> list[tuple[str, dict[str, Any]]]:
    shop = Shop(home / "shop.db", rows, seed=1)
    shop.export(home / "films.jsonl")
    server = LocalServer(home, {"MATINEE_ENHANCER__ENABLED": "false", "MATINEE_SERVING__PLACEMENT": "process"})
    server.start()
    try:
        start = time.perf_counter()
        asyncio.run(build(server, home / "films.jsonl"))
        server.wait_ready()
        print(f"{rows:,} rows, first index ready after {time.perf_counter() - start:.0f} s", flush=True)
        reports = [("nothing changed, compared", sync(server, shop))]
        shop.change(changed, marked=False)
        reports.append((f"{changed:.1%} changed, compared", sync(server, shop)))
        sync(server, shop, *FOLLOWED)
        shop.change(changed, marked=True)
        reports.append((f"{changed:.1%} changed, followed by a cursor", sync(server, shop, *FOLLOWED)))
        return reports
    finally:
        assert server.process is not None
        server.process.terminate()
        server.process.wait()


def table(reports: list[tuple[str, dict[str, Any]]]) -> str:
    cells = []
    for name, report in reports:
        seconds = [report["seconds"].get(stage, 0.0) for stage in STAGES] + [report["all"]]
        cells.append((name, report["written"], report["deleted"], *(f"{value:.1f}" for value in seconds)))
    return markdown(("round", "written", "deleted", *(f"{stage}, s" for stage in (*STAGES, "all"))), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the source")
    parser.add_argument("--changed", type=float, default=0.01, help="share of the rows that changes")
    parser.add_argument("--quick", action="store_true", help="500 rows: whether it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="matinee-sync-bench-") as folder:
        share_models(Path(folder))
        print(table(run(500 if args.quick else args.rows, args.changed, Path(folder))))


if __name__ == "__main__":
    run_main(main)
