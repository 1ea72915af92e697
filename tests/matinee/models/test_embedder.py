"""The embedder: MiniLM's golden vectors, and on tiny random encoders pooling, prompts, precisions, fingerprints, broken files."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from matinee.errors import ModelError
from matinee.models.convert import quiet
from matinee.models.embedder import MIN_COSINE, Embedder
from matinee.models.precision_choice import Choice, PrecisionChoice
from matinee.models.torch_encoder import TorchEncoder
from matinee.settings.models import EmbedderSettings

GOLDEN = {
    "a quiet drama about two brothers": [-0.00711, 0.00031, -0.07609, -0.00608],
    "Inception (2010). Science Fiction, Action.": [-0.0565, -0.04319, -0.0221, 0.0247],
    "été à Paris": [0.02176, 0.02792, 0.05845, -0.04767],
}
"""The first four dimensions of MiniLM at fp32: they change when weights, pooling, tokens or normalisation do."""


def load(folder: Path, models_dir: Path | None = None, **options: Any) -> Embedder:
    given = {"model": str(folder), "precision": "fp32", "threads": 1} | options
    return Embedder.load(EmbedderSettings(**given), models_dir or folder.parent / "models")


def cosines(a: np.ndarray, b: np.ndarray) -> Any:
    return (a * b).sum(axis=1)


def reference(folder: Path, texts: list[str], kind: str) -> np.ndarray:
    """What sentence-transformers itself makes of the same folder."""
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(texts, prompt_name=kind, show_progress_bar=False))


TEXTS = ["quiet drama", "the lighthouse keeper storm island heist about two brothers", "love", "a war train", "unknown words only"]


@pytest.fixture(scope="module")
def minilm(local_graph: Any) -> Embedder:
    model: Embedder = local_graph.embedder_replica().slot.model
    return model


@pytest.fixture(scope="module", params=["modernbert", "roberta"])
def folder(request: pytest.FixtureRequest, tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved: Path = tiny_encoder.save(tmp_path_factory.mktemp("tiny") / "model", request.param)
    return saved


@pytest.fixture(scope="module")
def roberta(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved: Path = tiny_encoder.save(tmp_path_factory.mktemp("tiny") / "model", "roberta")
    return saved


def test_golden_vectors(minilm: Embedder) -> None:
    found = minilm.encode(list(GOLDEN))
    assert found[:, :4] == pytest.approx(np.array(list(GOLDEN.values())), abs=2e-4)


def test_vectors_are_float32_and_of_unit_length(minilm: Embedder) -> None:
    found = minilm.encode(["", "x", "a quiet drama " * 40, "été", "電影", "\U0001f600"])
    assert (found.dtype, found.shape) == (np.float32, (6, minilm.dimension))
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_no_texts_give_no_rows(minilm: Embedder) -> None:
    assert minilm.encode([]).shape == (0, minilm.dimension)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([*GOLDEN, "x", "a quiet drama about two brothers " * 4, ""]), min_size=1, max_size=12))
def test_batches_keep_the_order_and_equal_the_singles(minilm: Embedder, texts: list[str]) -> None:
    singles = np.concatenate([minilm.encode([text]) for text in texts])
    assert minilm.encode(texts) == pytest.approx(singles, abs=1e-5)


def test_many_texts_are_tokenised_in_parts(roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load(roberta)
    whole = embedder.encode(TEXTS * 3)
    read = embedder.tokens_read
    monkeypatch.setattr("matinee.models.embedder._TOKENISED", 2)
    assert embedder.encode(TEXTS * 3) == pytest.approx(whole, abs=1e-5)
    assert embedder.tokens_read == 2 * read


@pytest.mark.full
def test_a_compiled_model_gives_the_same_vectors_and_sees_few_lengths(roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU. What a GPU makes of it, `bench.gpu` shows."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    embedder = load(roberta)
    plain = embedder.encode(TEXTS)
    forward = embedder._forward
    assert isinstance(forward, TorchEncoder)
    embedder._forward = TorchEncoder(forward.model, compiled=True)
    embedder._few_lengths = True
    assert embedder.encode(TEXTS) == pytest.approx(plain, abs=1e-5)
    assert {len(row) for text in TEXTS for row in embedder._pack([embedder._tokenizer.encode(text).ids])["input_ids"]} <= {16, 32, 48, 64}


class Watched:
    """An encoder that notes how many rows of which length it gets, and whose calls cost as much as `call_tokens` tokens."""

    def __init__(self, embedder: Embedder, call_tokens: float) -> None:
        self._forward = embedder._forward
        self.call_tokens = call_tokens
        self.shapes: list[tuple[int, int]] = []
        embedder._forward = self

    def __call__(self, inputs: dict[str, Any]) -> Any:
        self.shapes.append(inputs["input_ids"].shape)
        return self._forward(inputs)


def test_a_batch_holds_no_more_tokens_than_allowed(roberta: Path) -> None:
    embedder = load(roberta, batch_tokens=64)
    watched = Watched(embedder, math.inf)
    embedder.encode(TEXTS * 8)
    assert max(rows * length for rows, length in watched.shapes) <= 64
    assert sum(rows for rows, _ in watched.shapes) == 40
    assert len(watched.shapes) > 1


def test_a_batch_ends_where_padding_would_cost_more_than_a_call(roberta: Path) -> None:
    embedder = load(roberta)
    texts = ["king " * words for words in (20, 2, 3, 20, 2)]

    def shapes(call_tokens: float) -> list[tuple[int, int]]:
        watched = Watched(embedder, call_tokens)
        assert embedder.encode(texts) == pytest.approx(vectors, abs=1e-5)
        return [*watched.shapes]

    vectors = embedder.encode(texts)
    alike = shapes(0)
    [short, longer, long] = [length for _, length in alike]
    assert alike == [(2, short), (1, longer), (2, long)]
    padding = 2 * (longer - short)
    assert shapes(padding - 1) == alike
    assert shapes(padding) == [(3, longer), (2, long)]
    assert shapes(math.inf) == [(5, long)]


def test_long_texts_are_cut_to_the_settings_or_the_model(roberta: Path, minilm: Embedder) -> None:
    short = load(roberta, max_tokens=16)
    long = "king " * 500
    assert (short.max_tokens, load(roberta, max_tokens=8192).max_tokens) == (16, 64)
    short.encode([long, "king"])
    # The word, the model's prompt for documents before it, and the special tokens.
    assert short.tokens_read == 16 + 6
    assert short.encode([long], kind="query") == pytest.approx(short.encode(["king " * 100], kind="query"))
    cut, whole = minilm.encode(["winter " * 5000, "winter " * 254])
    assert cut == pytest.approx(whole, abs=1e-5)


def test_cls_pooling_and_prompts_are_those_of_the_model(tiny_encoder: Any, folder: Path) -> None:
    embedder = load(folder)
    for kind in ("query", "document"):
        assert embedder.encode(TEXTS, kind=kind) == pytest.approx(reference(folder, TEXTS, kind), abs=1e-5)
    assert cosines(embedder.encode(TEXTS, kind="query"), embedder.encode(TEXTS, kind="document")).max() < 0.99
    prompted = [tiny_encoder.PROMPTS["query"] + text for text in TEXTS]
    plain = load(tiny_encoder.save(folder.with_name("plain"), folder_kind(folder), prompts={}))
    assert embedder.encode(TEXTS, kind="query") == pytest.approx(plain.encode(prompted), abs=1e-5)


def folder_kind(folder: Path) -> str:
    kind: str = json.loads((folder / "config.json").read_text())["model_type"]
    return kind


def test_the_first_token_is_pooled_and_the_mean_would_differ(tiny_encoder: Any, folder: Path) -> None:
    embedder, mean = load(folder), load(tiny_encoder.save(folder.with_name("mean"), folder_kind(folder), pooling="mean"))
    states: list[np.ndarray] = []
    assert isinstance(embedder._forward, TorchEncoder)
    hook = embedder._forward.model[0].register_forward_hook(lambda *call: states.append(call[2]["token_embeddings"].numpy()))
    [vector] = embedder.encode([TEXTS[1]])
    hook.remove()
    first, middle = states[0][0, 0], states[0][0].mean(axis=0)
    assert vector @ first / np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert vector @ middle / np.linalg.norm(middle) < 0.99
    assert mean.encode([TEXTS[1]])[0] @ middle / np.linalg.norm(middle) == pytest.approx(1, abs=1e-5)
    assert mean.fingerprint != embedder.fingerprint


@pytest.mark.parametrize("precision", ["bf16", "onnx"])
def test_other_precisions_agree_with_fp32_and_share_its_fingerprint(
    roberta: Path, minilm: Embedder, precision: Any, tmp_path: Path
) -> None:
    small = load(roberta, precision=precision)
    assert cosines(small.encode(TEXTS), load(roberta).encode(TEXTS)).min() >= MIN_COSINE
    assert (small.precision, small.fingerprint) == (precision, load(roberta).fingerprint)
    real = Embedder.load(EmbedderSettings(precision=precision, threads=1), tmp_path)
    assert cosines(real.encode(list(GOLDEN)), minilm.encode(list(GOLDEN))).min() >= MIN_COSINE
    assert real.fingerprint == minilm.fingerprint


@pytest.mark.parametrize("workload", ["queries", "corpus"])
def test_auto_is_faithful_whatever_it_chooses(folder: Path, workload: Any) -> None:
    chosen = Embedder.load(EmbedderSettings(model=str(folder), threads=1), folder.parent / "models", workload=workload)
    assert chosen.precision in ("fp32", "bf16", "onnx")
    assert cosines(chosen.encode(TEXTS), load(folder).encode(TEXTS)).min() >= MIN_COSINE


def test_auto_measures_once_on_a_machine(tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, models_dir = tiny_encoder.save(tmp_path / "model"), tmp_path / "models"
    first = load(folder, models_dir, precision="auto")
    measured = list[str]()

    def first_of(candidates: list[Embedder], *_: object) -> Embedder:
        measured.extend(candidate.precision for candidate in candidates)
        return candidates[0]

    monkeypatch.setattr("matinee.models.embedder.pick_fastest", first_of)
    again = load(folder, models_dir, precision="auto")
    assert (again.precision, again.fingerprint, measured) == (first.precision, first.fingerprint, [])
    [kept] = (models_dir / "precision").iterdir()
    for broken in ('{"precision": "int1", "threads": 1}', "onnx", "[]", "{}"):
        kept.write_text(broken)
        measured.clear()
        load(folder, models_dir, precision="auto")
        assert "fp32" in measured
        assert json.loads(kept.read_text()) == {"precision": measured[0], "threads": 1}
    # Another workload is another choice.
    Embedder.load(EmbedderSettings(model=str(folder), threads=1), models_dir, workload="corpus")
    assert len(list((models_dir / "precision").iterdir())) == 2


def test_a_choice_that_cannot_be_kept_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    choice = PrecisionChoice(tmp_path / "file", "digest", "queries", 1)
    choice.write(Choice("onnx", 1))
    assert choice.read() is None


def test_an_unfaithful_precision_is_never_chosen_and_refused_by_name(
    tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_encoder.save(tmp_path / "model")
    monkeypatch.setattr("matinee.models.embedder.MIN_COSINE", 1.1)
    assert load(folder, precision="auto").precision == "fp32"
    for precision in ("bf16", "onnx"):
        with pytest.raises(ModelError, match=f"at {precision} differs from fp32"):
            load(folder, precision=precision)


def change_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[min(tensors)] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        change_json("1_Pooling/config.json", pooling_mode="mean"),
        change_json("config_sentence_transformers.json", prompts={"query": "other ", "document": ""}),
    ],
    ids=["weights", "pooling", "prompts"],
)
def test_the_fingerprint_changes_with_the_model(roberta: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(roberta, changed)
    assert load(changed).fingerprint == load(roberta).fingerprint
    change(changed)
    assert load(changed).fingerprint != load(roberta).fingerprint


@pytest.mark.parametrize("options", [{"max_tokens": 32}, {"language": "french"}, {"language": None}])
def test_the_fingerprint_changes_with_what_decides_vectors_and_terms(roberta: Path, options: dict[str, Any]) -> None:
    assert load(roberta, **options).fingerprint != load(roberta).fingerprint


def test_the_fingerprint_does_not_change_with_how_it_is_run(roberta: Path) -> None:
    same = load(roberta, batch_tokens=64, cache_entries=0, threads=2, max_tokens=8192)
    assert same.fingerprint == load(roberta).fingerprint


def damage(name: str, content: bytes | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.unlink() if content is None else path.write_bytes(content)

    return apply


@pytest.mark.parametrize(
    "apply",
    [
        damage("model.safetensors", None),
        damage("model.safetensors", b"\x00" * 100),
        damage("config.json", b"{"),
        damage("config.json", b'{"model_type": "nonsense"}'),
        damage("config.json", b"{}"),
        damage("modules.json", b"{"),
        damage("modules.json", b'[{"idx": 0, "name": "0", "path": "", "type": "no.such.Module"}]'),
        damage("modules.json", b'["x"]'),
        damage("tokenizer.json", b"{}"),
        damage("tokenizer.json", None),
        damage("1_Pooling/config.json", b"{"),
        damage("1_Pooling/config.json", None),
    ],
)
def test_a_broken_folder_is_explained(roberta: Path, tmp_path: Path, apply: Callable[[Path], None]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(roberta, broken)
    apply(broken)
    with pytest.raises(ModelError):
        load(broken)


def test_a_model_that_lacks_a_tensor_is_refused(roberta: Path, tmp_path: Path) -> None:
    """And its weights are not drawn at random; only those of the pooler, which no vector sees, may be left out."""
    broken = tmp_path / "broken"
    shutil.copytree(roberta, broken)
    tensors = load_file(broken / "model.safetensors")
    unused = [name for name in tensors if "pooler" in name]
    save_file({name: tensors[name] for name in tensors.keys() - unused}, broken / "model.safetensors", metadata={"format": "pt"})
    assert load(broken).encode(["quiet"]).shape == (1, 32)
    lost = next(name for name in tensors if name.endswith("attention.self.query.weight"))
    save_file({name: tensors[name] for name in tensors.keys() - {lost}}, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks 1 of its model's tensors, such as {lost.removeprefix('roberta.')}"):
        load(broken)


def test_pooling_without_the_prompt_is_refused(roberta: Path, tmp_path: Path) -> None:
    without = tmp_path / "without"
    shutil.copytree(roberta, without)
    change_json("1_Pooling/config.json", include_prompt=False)(without)
    with pytest.raises(ModelError, match="include_prompt: false"):
        load(without)
    change_json("config_sentence_transformers.json", prompts={})(without)
    assert load(without).encode(["quiet"]).shape == (1, 32)


def test_a_model_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_weights_that_are_not_finite_or_zero_never_give_a_vector(roberta: Path, tmp_path: Path, value: float) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(roberta, broken)
    tensors = {name: torch.full_like(tensor, value) for name, tensor in load_file(broken / "model.safetensors").items()}
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="zero or not finite"):
        load(broken).encode(["quiet"])


def test_info_says_what_runs(roberta: Path) -> None:
    embedder = load(roberta, revision="abc")
    assert embedder.info() == {
        "model": f"{roberta}@abc",
        "precision": "fp32",
        "dimension": 32,
        "max_tokens": 64,
        "language": "english",
        "fingerprint": embedder.fingerprint,
    }
