"""`train.triplets --engine ray` on a cluster of two nodes: the negatives of one process, also where a worker is killed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.ingesting.nodes import Nodes
from tests.waiting import HANG_S, until

pytestmark = pytest.mark.full


def rows_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.jsonl")}


def test_a_cluster_mines_what_one_process_mines(nodes: Nodes, tiny_encoder: Any, prepared: Path, tmp_path: Path) -> None:
    model = tiny_encoder.save(tmp_path / "model")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")} | {"MATINEE_HOME": str(tmp_path)}
    env |= {"MATINEE_EMBEDDER__PRECISION": "fp32", "MATINEE_EMBEDDER__THREADS": "1"}

    def start(out: str, *options: str, **more: str) -> "subprocess.Popen[bytes]":
        asked = ["--negatives", "encoder", "--model", str(model), "--out", str(tmp_path / out), *options]
        with (tmp_path / f"{out}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-m", "train.triplets", str(prepared), *asked], env=env | more, stdout=log, stderr=log)

    def log(out: str) -> str:
        return (tmp_path / f"{out}.log").read_text(encoding="utf-8", errors="replace")

    assert start("alone", "--engine", "process").wait(HANG_S) == 0, log("alone")
    spread = start("spread", "--engine", "ray", "--workers", "2", "--threads", "1", RAY_ADDRESS=nodes.cluster.address)
    try:
        until(lambda: nodes.processes("TextEncoder"), lambda: log("spread"))
        nodes.processes("TextEncoder")[0].kill()
        assert spread.wait(HANG_S) == 0, log("spread")
    finally:
        spread.kill()
    assert "engine ray: 2 processes to encode" in log("spread")
    mined = rows_of(tmp_path / "alone")
    assert any('"negative"' in text for text in mined.values())
    assert rows_of(tmp_path / "spread") == mined
