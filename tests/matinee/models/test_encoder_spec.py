"""A second start with a remembered ONNX encoder: it loads neither the model nor PyTorch, and its vectors are those of the first."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from matinee.models import embedder, encoder_spec
from matinee.models.convert import quiet
from matinee.models.embedder import Embedder
from matinee.settings.models import EmbedderSettings

TEXTS = ["quiet drama", "the lighthouse keeper storm island heist about two brothers", "love", "winter " * 500, ""]


def with_dense(folder: Path) -> Path:
    """The encoder of `folder` with one more layer: its vectors have 16 dimensions."""
    torch.manual_seed(1)
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu")
        # Before the normalisation.
        model.insert(2, Dense(32, 16))
        model.save_pretrained(str(folder.with_name("dense")))
    return folder.with_name("dense")


@pytest.fixture(autouse=True)
def _onnx_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "pick_fastest", lambda candidates, *_: next(e for e in candidates if e.precision == "onnx"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders from which sentence-transformers loaded a model since."""
    folders, load_model = list[Path](), embedder.load_model

    def noted(folder: Path, *args: Any, **options: Any) -> Any:
        folders.append(folder)
        return load_model(folder, *args, **options)

    monkeypatch.setattr(embedder, "load_model", noted)
    return folders


def load(folder: Path, **options: Any) -> Embedder:
    return Embedder.load(EmbedderSettings(**{"model": str(folder), "threads": 1} | options), folder.parent / "models")


@pytest.fixture(scope="module", params=["modernbert cls", "roberta mean", "roberta max", "roberta dense"])
def folder(request: pytest.FixtureRequest, tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, pooling = request.param.split()
    saved = tmp_path_factory.mktemp("tiny") / "model"
    return with_dense(tiny_encoder.save(saved, kind)) if pooling == "dense" else tiny_encoder.save(saved, kind, pooling=pooling)


def test_its_vectors_are_those_of_sentence_transformers(folder: Path, loaded: list[Path]) -> None:
    first = load(folder)
    assert loaded
    loaded.clear()
    second = load(folder)
    assert loaded == []
    assert second.info() == first.info() == load(folder, precision="fp32").info() | {"precision": "onnx"}
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu")
    for kind in ("query", "document"):
        expected = model.encode(TEXTS, prompt_name=kind, normalize_embeddings=True, show_progress_bar=False)
        assert second.encode(TEXTS, kind=kind) == pytest.approx(np.asarray(expected), abs=1e-5)  # type: ignore[arg-type]


def test_the_settings_cut_texts_as_at_the_first_start(folder: Path, loaded: list[Path]) -> None:
    load(folder)
    loaded.clear()
    cut, whole = load(folder, max_tokens=16), load(folder, max_tokens=16, precision="fp32")
    assert len(loaded) == 1
    assert (cut.fingerprint, cut.max_tokens) == (whole.fingerprint, 16)
    assert cut.encode(TEXTS) == pytest.approx(whole.encode(TEXTS), abs=1e-5)
    assert cut.tokens_read == whole.tokens_read


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("encoders/*/encoder.json", b"{}"),
        ("encoders/*/encoder.json", None),
        ("encoders/*/tokenizer.json", b"{}"),
        ("encoders/*/manifest.json", None),
        ("onnx/*/model.onnx", b"x"),
        ("onnx/*/model.onnx", None),
    ],
)
def test_what_was_kept_and_is_damaged_is_made_again(
    tiny_encoder: Any, tmp_path: Path, loaded: list[Path], file: str, content: bytes | None
) -> None:
    folder = tiny_encoder.save(tmp_path / "model", "roberta")
    first = load(folder)
    [path] = (tmp_path / "models").glob(file)
    path.unlink() if content is None else path.write_bytes(content)
    loaded.clear()
    assert load(folder).encode(TEXTS) == pytest.approx(first.encode(TEXTS), abs=1e-6)
    assert loaded
    loaded.clear()
    assert load(folder).encode(TEXTS) == pytest.approx(first.encode(TEXTS), abs=1e-6)
    assert loaded == []


def test_another_version_of_a_library_reads_the_model_itself(
    tiny_encoder: Any, tmp_path: Path, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_encoder.save(tmp_path / "model", "roberta")
    load(folder)
    loaded.clear()
    monkeypatch.setattr(encoder_spec, "version", lambda name: "99")
    load(folder)
    assert loaded


def test_what_cannot_be_kept_is_no_fault(tiny_encoder: Any, tmp_path: Path, loaded: list[Path]) -> None:
    folder = tiny_encoder.save(tmp_path / "model", "roberta")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "encoders").write_text("")
    assert load(folder).precision == "onnx"
    loaded.clear()
    assert load(folder).precision == "onnx"
    assert loaded


def test_it_imports_neither_pytorch_nor_sentence_transformers(tiny_encoder: Any, tmp_path: Path) -> None:
    folder = tiny_encoder.save(tmp_path / "model", "roberta")
    first = load(folder)
    program = f"""
import sys
from pathlib import Path
from matinee.models.embedder import Embedder
from matinee.settings.models import EmbedderSettings

embedder = Embedder.load(EmbedderSettings(model={str(folder)!r}, threads=1), Path({str(tmp_path / "models")!r}))
print(embedder.encode({TEXTS!r}).tobytes().hex())
print(sorted({{"torch", "sentence_transformers", "transformers", "scipy", "sklearn"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    vectors, imported = done.stdout.splitlines()
    assert np.frombuffer(bytes.fromhex(vectors), np.float32).reshape(len(TEXTS), -1) == pytest.approx(first.encode(TEXTS), abs=1e-6)
    assert imported == "[]"
