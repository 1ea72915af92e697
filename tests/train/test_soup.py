"""`train.soup` on tiny encoders: the weights are the mean that was asked for, and models that can't be averaged are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from matinee.models import saved_model
from matinee.models.embedder import Embedder
from matinee.models.registry import ArtifactStore
from matinee.settings.load import load_settings
from matinee.settings.models import EmbedderSettings
from train import soup
from train.embedding.contrastive import load_base
from train.jobs import manifests

Member = Callable[..., Path]


def run(*args: Any) -> Any:
    return CliRunner().invoke(soup.app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def base(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved: Path = tiny_encoder.save(tmp_path_factory.mktemp("base") / "model")
    return saved


@pytest.fixture
def member(tiny_encoder: Any) -> Member:
    """What train.embedder leaves behind, with random weights."""

    def made(folder: Path, base: Path, seed: int, kind: str = "modernbert", name: str = "known_desc") -> Path:
        tiny_encoder.save(folder / "model", kind, seed=seed)
        settings = {"base": str(base), "base_digest": saved_model.digest(base)}
        best = {"epoch": 1, "step": 4, "score": 1 + seed / 10, "dev": {name: seed / 10}}
        more = {"digest": f"{seed}" * 64, "base_revision": "pinned", "report": {"best": best}}
        manifests.write(folder, "embedder", settings, {f"triplets/{name}.jsonl": "0" * 64}, **more)
        return folder

    return made


def test_every_weight_is_the_mean_with_the_bases_share(base: Path, member: Member, tmp_path: Path) -> None:
    made = [member(tmp_path / str(seed), base, seed) for seed in (1, 2)]
    done = run(*made, "--base-share", 0.5, "--out", tmp_path / "soup")
    assert done.exit_code == 0, done.output
    mixed, *parts = (load_base(folder, "cpu").state_dict() for folder in (tmp_path / "soup" / "model", base, *(m / "model" for m in made)))
    assert mixed.keys() == parts[0].keys()
    for name, tensor in mixed.items():
        expected = sum(share * part[name].double() for share, part in zip((0.5, 0.25, 0.25), parts, strict=True))
        assert np.allclose(tensor.double(), expected, atol=1e-6), name
    manifest = manifests.read(tmp_path / "soup", "soup")
    origin = ArtifactStore(load_settings().artifacts_uri).find(manifest["digest"]).origin
    assert (origin.settings["base_share"], len(origin.settings["members"]), len(origin.data)) == (0.5, 2, 2)
    assert origin.base_revision == "pinned"
    # What is known of the members, by member.
    assert origin.metrics == {
        f"{seed}" * 12 + f"/{name}": pytest.approx(value)
        for seed in (1, 2)
        for name, value in (("dev_known_desc_ndcg", seed / 10), ("dev_gain", 1 + seed / 10))
    }
    loaded = Embedder.load(EmbedderSettings(model=str(tmp_path / "soup" / "model"), precision="fp32", threads=1), tmp_path / "models")
    assert loaded.encode(["a quiet drama"]).shape == (1, 32)
    again = run(*made, "--base-share", 0.5, "--out", tmp_path / "soup")
    assert "complete already" in again.output


def test_what_is_not_of_one_base_is_refused(tiny_encoder: Any, base: Path, member: Member, tmp_path: Path) -> None:
    made = [member(tmp_path / "a", base, 1), member(tmp_path / "b", tiny_encoder.save(tmp_path / "other" / "model", seed=9), 2)]
    done = run(*made, "--out", tmp_path / "soup")
    assert done.exit_code != 0
    assert "was not tuned from the base of" in done.output
    other = run(made[0], member(tmp_path / "c", base, 3, "roberta"), "--out", tmp_path / "soup")
    assert other.exit_code != 0
    assert "average models that were trained from one base" in " ".join(other.output.split())
    assert not (tmp_path / "soup" / manifests.MANIFEST).exists()


def test_a_result_that_is_not_whole_any_more_is_named(base: Path, member: Member, tmp_path: Path) -> None:
    made = member(tmp_path / "a", base, 1)
    (made / "model" / "config.json").unlink()
    done = run(made, "--out", tmp_path / "soup")
    assert done.exit_code != 0
    assert "config.json is not what its manifest says: run `python -m train.embedder` again" in " ".join(done.output.split())


def test_a_folder_that_is_no_result_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--out", tmp_path / "soup")
    assert done.exit_code != 0
    assert "has no manifest: run `python -m train.embedder`" in done.output
