"""`train.ingest --engine ray` on a cluster of two nodes, and what a kill of a worker, of a node or of the driver leaves."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matinee.disk_cache import DiskCache
from matinee.index.factory import open_store
from matinee.index.points import BATCH
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from tests.train.ingesting.catalogue import Points, points_of, write_catalogue
from tests.train.ingesting.nodes import Nodes
from tests.waiting import HANG_S, until

pytestmark = pytest.mark.full

ITEMS = 1500


@pytest.fixture(scope="module")
def model(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_encoder.save(tmp_path_factory.mktemp("model") / "tiny")
    return folder


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Each text fills the tiny encoder, and a batch of it: the work takes long enough to be killed in its middle.
    return write_catalogue(tmp_path_factory.mktemp("catalogue") / "films.csv", ITEMS, words=160)


@pytest.fixture(scope="module")
def expected(model: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Points:
    """The index that one process makes."""
    run = Run(tmp_path_factory.mktemp("alone"), model, catalogue)
    run.start("--engine", "process")
    assert run.result()["texts encoded"] == ITEMS
    return run.points()


class Run:
    """Ingests of the catalogue into one home."""

    def __init__(self, home: Path, model: Path, catalogue: Path, **more: str) -> None:
        self.home, self.catalogue = home, catalogue
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")} | {
            "MATINEE_HOME": str(home),
            "MATINEE_EMBEDDER__MODEL": str(model),
            "MATINEE_EMBEDDER__PRECISION": "fp32",
            "MATINEE_EMBEDDER__BATCH_TOKENS": "64",
            "COLUMNS": "200",
            **more,
        }
        self.settings: Settings = load_settings({"home": home}, environ={})

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "train.ingest", str(self.catalogue), "--kind", "film", "--json", "--rejects", str(self.home)]
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen([*command, *options], env=self._env, stdout=subprocess.PIPE, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def log(self) -> str:
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")

    def kept(self) -> int:
        """Vectors that are on disk."""
        self.alive()
        for path in (self.home / "ingest").glob("*.sqlite"):
            cache = DiskCache(path)
            try:
                return len(cache)
            finally:
                cache.close()
        return 0

    def alive(self) -> None:
        assert self.process.poll() is None, self.log()

    def result(self) -> dict[str, Any]:
        stdout, _ = self.process.communicate(timeout=HANG_S)
        assert self.process.returncode == 0, self.log()
        result: dict[str, Any] = json.loads(stdout)
        return result

    def points(self) -> Points:
        async def read() -> Points:
            store = open_store(self.settings)
            current = await store.current()
            assert current is not None
            return await points_of(store, current.version)

        return asyncio.run(read())


@pytest.fixture
def spread(nodes: Nodes, model: Path, catalogue: Path, tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, model, catalogue, RAY_ADDRESS=nodes.cluster.address)
    yield run
    run.kill()


def assert_same(found: Points, expected: Points) -> None:
    assert found.keys() == expected.keys()
    for id, (payload, dense, sparse) in found.items():
        assert (payload, sparse) == (expected[id][0], expected[id][2])
        for name, vector in dense.items():
            assert vector == pytest.approx(expected[id][1][name], abs=1e-5)


def spread_start(run: Run) -> None:
    run.start("--engine", "ray", "--workers", "2", "--threads", "1")


def test_the_index_is_that_of_one_process(spread: Run, expected: Points) -> None:
    spread_start(spread)
    result = spread.result()
    assert (result["from the file"], result["texts encoded"], result["texts known from the last ingest"]) == (ITEMS, ITEMS, 0)
    assert "2 processes to embed (1 CPU threads each), 1 to write" in spread.log()
    assert_same(spread.points(), expected)
    assert not [line for line in spread.log().splitlines() if "Warning" in line or " E " in line]


def test_descriptions_that_are_there_are_part_of_the_index(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    told = {str(number): f"A quiet storm, number {number}." for number in range(20)}
    given = tmp_path / "descriptions.jsonl"
    given.write_text("".join(json.dumps({"id": id, "description": text}) + "\n" for id, text in told.items()))
    run = Run(tmp_path, model, write_catalogue(tmp_path / "few.csv", len(told)), RAY_ADDRESS=nodes.cluster.address)
    run.start("--engine", "ray", "--threads", "1", "--recipe", "both", "--descriptions", str(given))
    # Of each item the raw text and the description.
    assert run.result()["texts encoded"] == 2 * len(told)
    assert "1 processes to embed (1 CPU threads each), 1 to describe, 1 to write" in run.log()
    assert {payload["item"]["id"]: payload["description"] for payload, _, _ in run.points().values()} == told


def test_killed_workers_lose_nothing(nodes: Nodes, spread: Run, expected: Points) -> None:
    """One that embeds, the one that writes, and the one that keeps the vectors."""
    spread_start(spread)
    until(lambda: spread.kept() > 100, spread.log)
    for stage in ("Embedding", "PointWriter", "KeptFiles"):
        nodes.processes(stage)[0].kill()
    result = spread.result()
    assert result["from the file"] == ITEMS
    assert result["texts encoded"] + result["texts known from the last ingest"] == ITEMS
    # What a killed worker had made of its block was kept, and was not made again.
    assert result["texts known from the last ingest"] <= 2 * BATCH
    assert_same(spread.points(), expected)


_POISON = """
import os, signal
from train.ingesting.embedding import Embedding

encode = Embedding.encode

def killing(self, texts):
    if any(text.startswith("Film 700.") for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, texts)

Embedding.encode = killing
"""


def test_an_item_that_kills_each_worker_is_left_out(model: Path, catalogue: Path, expected: Points, tmp_path: Path) -> None:
    (tmp_path / "poison.py").write_text(_POISON)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif any('default_worker' in part for part in sys.orig_argv):\n    import poison\n"
    )
    run = Run(tmp_path, model, catalogue, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", os.getcwd())]))  # noqa: PTH109
    spread_start(run)
    result = run.result()
    assert (result["from the file"], result["rejected"]) == (ITEMS - 1, 1)
    [reject] = map(json.loads, Path(result["rejects_file"]).read_text().splitlines())
    assert (reject["line"], json.loads(reject["raw"])["title"]) == (702, "Film 700")
    assert "its worker died each time" in reject["reason"]
    assert_same(run.points(), {id: point for id, point in expected.items() if point[0]["item"]["title"] != "Film 700"})


def test_a_killed_node_loses_nothing(nodes: Nodes, spread: Run, expected: Points) -> None:
    spread_start(spread)
    until(lambda: spread.kept() > 100, spread.log)
    nodes.kill(nodes.workers[0])
    result = spread.result()
    assert result["from the file"] == ITEMS
    assert_same(spread.points(), expected)


def test_a_driver_that_was_killed_goes_on_from_what_is_kept(spread: Run, expected: Points) -> None:
    spread_start(spread)
    until(lambda: spread.kept() > 100, spread.log)
    spread.kill()
    assert not (spread.settings.index_dir / "CURRENT").exists()
    # Its workers end when they notice, and may finish what they do.
    spread_start(spread)
    result = spread.result()
    assert result["texts known from the last ingest"] > 100
    assert result["texts encoded"] + result["texts known from the last ingest"] == ITEMS
    assert_same(spread.points(), expected)
    assert len(list(spread.settings.index_dir.glob("*/shard"))) == 1, "what the killed run began is gone"


def test_an_interrupt_ends_it_between_two_batches(spread: Run) -> None:
    spread_start(spread)
    until(lambda: spread.kept() > 100, spread.log)
    spread.process.send_signal(signal.SIGINT)
    stdout, _ = spread.process.communicate(timeout=HANG_S)
    assert (spread.process.returncode, stdout) == (130, b"")
    assert "the old index goes on serving" in spread.log()
