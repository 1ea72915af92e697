"""`train.describe --engine ray` on a cluster of two nodes, and what a kill of a worker or of the driver leaves."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matinee.evaluation.splits import read_entries
from tests.train.ingesting.nodes import Nodes
from tests.waiting import HANG_S, until

pytestmark = pytest.mark.full


class Run:
    """Runs of the job into one file."""

    def __init__(self, home: Path, base: Path, prepared: Path, **more: str) -> None:
        self.out = home / "descriptions.jsonl"
        self._home, self._prepared = home, prepared
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")} | {
            "MATINEE_HOME": str(home),
            "MATINEE_ENHANCER__MODEL": str(base),
            "MATINEE_ENHANCER__PRECISION": "fp32",
            "COLUMNS": "200",
            **more,
        }

    def start(self, *options: str) -> None:
        # A few long descriptions at a time: a kill finds work that is under way.
        asked = ["--out", str(self.out), "--unchecked", "--batch", "2", "--tokens", "200"]
        with (self._home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "train.describe", str(self._prepared), *asked, *options], env=self._env, stdout=log, stderr=log
            )

    def log(self) -> str:
        return (self._home / "log").read_text(encoding="utf-8", errors="replace")

    def written(self) -> int:
        assert self.process.poll() is None, self.log()
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def rows(self) -> dict[str, str]:
        """Each item once."""
        assert self.process.wait(HANG_S) == 0, self.log()
        rows = [json.loads(line) for line in self.out.read_text().splitlines()]
        found = {row["id"]: row["description"] for row in rows}
        assert len(found) == len(rows)
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def expected(tiny_base: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process writes."""
    run = Run(tmp_path_factory.mktemp("alone"), tiny_base, prepared)
    run.start("--engine", "process")
    return run.rows()


@pytest.fixture
def spread(nodes: Nodes, tiny_base: Path, prepared: Path, tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, tiny_base, prepared, RAY_ADDRESS=nodes.cluster.address)
    yield run
    run.kill()


def spread_start(run: Run) -> None:
    run.start("--engine", "ray", "--workers", "2", "--threads", "1")


def test_killed_workers_and_drivers_leave_out_no_item_and_write_none_twice(
    nodes: Nodes, spread: Run, prepared: Path, expected: dict[str, str]
) -> None:
    assert expected.keys() == {entry.id for entry in read_entries(prepared)}
    spread_start(spread)
    until(lambda: spread.written() > 0, spread.log)
    spread.kill()
    before = spread.out.read_bytes().count(b"\n")
    assert 0 < before < len(expected)
    spread_start(spread)
    until(lambda: spread.written() > before, spread.log)
    nodes.processes("DescribeWorker")[0].kill()
    found = spread.rows()
    assert found.keys() == expected.keys()
    assert all(isinstance(text, str) for text in found.values())
    assert f"{len(expected) - before} of them now" in spread.log()


def test_the_texts_are_those_of_one_process(spread: Run, expected: dict[str, str]) -> None:
    spread_start(spread)
    found = spread.rows()
    assert "2 processes to describe (1 CPU threads each)" in spread.log()
    assert found == expected
