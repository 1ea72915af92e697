"""`train.ingesting.texts`: the vectors of a cluster are those of one process, in the order of the texts, and so are the negatives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from matinee.index.points import BATCH
from matinee.models.embedder import Embedder
from matinee.models.types import Kind
from matinee.settings.load import load_settings
from tests.train.ingesting.nodes import Nodes
from tests.waiting import HANG_S
from train.ingesting import columns
from train.ingesting.texts import TextEmbedding, _tables


@pytest.fixture(scope="module")
def model(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_encoder.save(tmp_path_factory.mktemp("model") / "tiny")
    return folder


@pytest.mark.parametrize("kind", ["query", "document"])
def test_rows_and_vectors_belong_together(model: Path, kind: Kind, tmp_path: Path) -> None:
    settings = load_settings({"home": tmp_path, "embedder": {"model": str(model), "precision": "fp32", "threads": 1}}, environ={})
    texts = [f"quiet drama {'storm ' * (number % 7)}" for number in range(BATCH + 9)]
    embedding = TextEmbedding(settings, 1, None)
    tables = [embedding(table) for table in _tables(texts, kind)]
    found = pa.concat_tables(reversed(tables))
    expected = Embedder.load(settings.embedder, settings.models_dir).encode(texts, kind=kind)
    assert sorted(found["row"].to_pylist()) == [*range(len(texts))]
    assert np.abs(columns.vectors_of(found) - expected[found["row"].to_numpy()]).max() < 1e-5


@pytest.mark.full
def test_the_negatives_of_a_cluster_are_those_of_one_process(nodes: Nodes, model: Path, prepared: Path, tmp_path: Path) -> None:
    def mined(name: str, *options: str) -> list[dict[str, Any]]:
        out = tmp_path / name
        command = [sys.executable, "-m", "train.triplets", str(prepared), "--out", str(out), "--negatives", "encoder", "--count", "60"]
        env = os.environ | {
            "MATINEE_HOME": str(tmp_path),
            "MATINEE_EMBEDDER__MODEL": str(model),
            "MATINEE_EMBEDDER__PRECISION": "fp32",
            "RAY_ADDRESS": nodes.cluster.address,
        }
        done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=HANG_S, check=False)
        assert done.returncode == 0, done.stderr
        assert ("engine ray: 2 processes to embed" in done.stderr) == ("ray" in options)
        return [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]

    alone = mined("alone", "--engine", "process")
    spread = mined("spread", "--engine", "ray", "--workers", "2", "--threads", "1")
    assert len(alone) > 20
    # Batches of other lengths round otherwise, and two items that are as near as each other may change places.
    same = sum(one == other for one, other in zip(alone, spread, strict=False))
    assert same >= 0.9 * len(alone)
