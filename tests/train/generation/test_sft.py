"""Supervised fine-tuning and LoRA on a tiny Gemma, without Ray: every precision, resuming, the loss, and that what was trained serves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from matinee.models import backends, saved_model
from matinee.models.backends import GenerationOptions
from matinee.models.enhancer import Enhancer
from matinee.settings.models import EnhancerSettings
from train.generation import bleu, lora, sft
from train.generation.config import SftConfig
from train.generation.instruction_pairs import InstructionPair, read_pairs

TINY = {"batch": 2, "effective": 4, "max_steps": 3, "limit": 8, "rank": 4, "lr": 1e-2, "max_tokens": 512}


def trained(base: Path, config: SftConfig, pairs: list[InstructionPair], out: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """The job's own parts without Ray."""
    model, tokenizer = sft.load(base, config, "cpu", adapter)
    trainer = sft.build_trainer(model, tokenizer, config, pairs, out, workers=1, gpu=False, callbacks=[])
    trainer.train()
    assert trainer.trouble is None
    return trainer, tokenizer


@pytest.mark.parametrize("precision", lora.PRECISIONS)
def test_each_precision_trains_an_adapter_that_serves(tiny_base: Path, pairs_of_films: Path, tmp_path: Path, precision: str) -> None:
    """Every layer of attention and projection learns, the base does not, and what was trained is what serving loads."""
    config = SftConfig(precision=precision, **TINY)
    pairs = read_pairs(pairs_of_films / "train.jsonl")
    trainer, tokenizer = trained(tiny_base, config, pairs, tmp_path / "run")
    moved = {name for name, weight in trainer.model.named_parameters() if "lora_B" in name and weight.abs().sum() > 0}
    assert {name.split(".lora_B")[0].rpartition(".")[2] for name in moved} == set(lora.TARGETS)
    assert len(moved) == 2 * len(lora.TARGETS)
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    lora.export(tmp_path / "run" / "checkpoint-3", tmp_path / "adapter", str(tiny_base))
    saved_model.check_adapter(tmp_path / "adapter", tiny_base, str(tiny_base))
    assert not list((tmp_path / "adapter").glob("*.bin"))
    written = bleu.write(trainer.model, tokenizer, pairs[:2], 8, precision)
    backend = backends.load(tiny_base, tmp_path / "adapter", precision, models_dir=tmp_path)
    loaded = Enhancer(backend, EnhancerSettings(), model_digest="a", adapter_digest="b")
    answers = backend.generate(
        [loaded.prompt(pair.item) for pair in pairs[:2]], GenerationOptions(max_new_tokens=8, one_line=True, sentences=4)
    )
    # Letters are the whole of this model's prose.
    assert [answer.text.rstrip(". ") for answer in answers] == [text.rstrip(". ") for text in written]


def test_the_sizes_that_see_learn_with_their_eyes_shut(tiny_that_sees: Path, pairs_of_films: Path, tmp_path: Path) -> None:
    config = SftConfig(precision="bf16", **TINY)
    trainer, _ = trained(tiny_that_sees, config, read_pairs(pairs_of_films / "train.jsonl"), tmp_path / "run")
    learnt = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert len(learnt) == 2 * 2 * len(lora.TARGETS)
    assert not any("vision" in name for name, _ in trainer.model.named_parameters())
    lora.export(tmp_path / "run" / "checkpoint-3", tmp_path / "adapter", str(tiny_that_sees))
    saved_model.check_adapter(tmp_path / "adapter", tiny_that_sees, str(tiny_that_sees))
    base, adapted = (
        backends.load(tiny_that_sees, adapter, "bf16", models_dir=tmp_path).generate(["a b c"], GenerationOptions(max_new_tokens=12))
        for adapter in (None, tmp_path / "adapter")
    )
    assert base != adapted


def test_going_on_ends_in_the_same_weights_and_an_adapter_can_be_taught_more(tiny_base: Path, pairs_of_films: Path, tmp_path: Path) -> None:
    config = SftConfig(precision="fp32", **TINY | {"save_steps": 1})
    pairs = read_pairs(pairs_of_films / "train.jsonl")
    trained(tiny_base, config, pairs, tmp_path / "whole")
    model, tokenizer = sft.load(tiny_base, config, "cpu")
    again = sft.build_trainer(model, tokenizer, config, pairs, tmp_path / "again", workers=1, gpu=False, callbacks=[])
    again.add_callback(_StopAt(2))
    again.train()
    model, tokenizer = sft.load(tiny_base, config, "cpu")
    resumed = sft.build_trainer(model, tokenizer, config, pairs, tmp_path / "again", workers=1, gpu=False, callbacks=[])
    resumed.train(resume_from_checkpoint=str(tmp_path / "again" / "checkpoint-2"))
    whole, parts = (load_file(tmp_path / name / "checkpoint-3" / "adapter_model.safetensors") for name in ("whole", "again"))
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    lora.export(tmp_path / "whole" / "checkpoint-3", tmp_path / "adapter", str(tiny_base))
    more, _ = trained(tiny_base, config, pairs, tmp_path / "more", tmp_path / "adapter")
    taught = load_file(tmp_path / "more" / "checkpoint-3" / "adapter_model.safetensors")
    assert more.state.log_history[0]["loss"] < again.state.log_history[0]["loss"]
    assert any(not torch.equal(whole[name], taught[name]) for name in whole)


def test_the_loss_of_a_cpu_is_that_of_trl(tiny_base: Path, pairs_of_films: Path, tmp_path: Path) -> None:
    config = SftConfig(precision="fp32", **TINY)
    model, tokenizer = sft.load(tiny_base, config, "cpu")
    pairs = read_pairs(pairs_of_films / "train.jsonl")
    trainer = sft.build_trainer(model, tokenizer, config, pairs, tmp_path, workers=1, gpu=False, callbacks=[])
    batch = next(iter(trainer.get_train_dataloader()))
    found = []
    for compute in (type(trainer).compute_loss, SFTTrainer.compute_loss):
        model.zero_grad()
        loss = compute(trainer, model, dict(batch), num_items_in_batch=torch.tensor(11))
        loss.backward()
        found.append((loss.detach(), *(weight.grad.clone() for weight in model.parameters() if weight.requires_grad)))
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(*found, strict=True))


class _StopAt(TrainerCallback):  # type: ignore[misc]
    """Ends a training early, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.step
