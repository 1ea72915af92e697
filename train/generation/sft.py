"""What one worker of `train.enhancer` does: train an adapter with TRL's SFTTrainer, measure BLEU each epoch, go on where it stopped.

Does not move checkpoints or end runs (`train.jobs.checkpoints`), and does not build the model and its adapter (`train.generation.lora`).
"""

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import trl

from matinee.errors import ModelError
from matinee.models import backends
from train.generation import bleu, completions, lora
from train.generation.config import SAMPLES, AdapterPlan, SftConfig
from train.generation.instruction_pairs import InstructionPair, read_pairs
from train.jobs.arguments import trainer_arguments
from train.jobs.checkpoints import FiniteLoss, Reporter, run_worker


def train_adapter(
    plan: AdapterPlan, examples: Sequence[Any], reporter_of: Callable[..., "BleuReporter"], build: Callable[..., Any]
) -> None:
    """What SFT and DPO have in common: one worker's run, from the last checkpoint to the end."""

    def build_both(state: dict[str, Any], rank: int, workers: int) -> tuple[Any, BleuReporter]:
        device = f"cuda:{torch.cuda.current_device()}" if plan.gpu else "cpu"
        model, tokenizer = load(plan.base, plan.config, device, plan.adapter)
        reporter = reporter_of(plan, tokenizer, read_pairs(plan.heldout)[: plan.config.heldout], state, rank)
        trainer = build(model, tokenizer, plan.config, examples, plan.work / "trainer", workers=workers, gpu=plan.gpu, callbacks=[reporter])
        reporter.begin(trainer, model)
        return trainer, reporter

    run_worker(plan, build_both, lambda state: int(state.get("done", 0)))


def load(base: Path, config: SftConfig, device: str, adapter: Path | None = None) -> tuple[Any, Any]:
    """The model with the adapter to train, and its tokenizer."""
    tokenizer = backends.load_tokenizer(base)
    model = lora.load_base(base, config.precision, device)
    if adapter is not None:
        return lora.readapt(model, adapter), tokenizer
    return lora.adapt(model, rank=config.rank, alpha=config.alpha, dropout=config.dropout, seed=config.seed), tokenizer


class CompletionTrainer(trl.SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, which on a CPU would project the prompts too onto 262,144 tokens: most of a step, for a loss that ignores them."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs["labels"][:, 1:]
        if labels.is_cuda or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        answer = labels != completions.IGNORED
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][answer],))
        try:
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        finally:
            hook.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[answer], reduction="sum")
        # As in TRL: the tokens of all workers are counted together, and their gradients averaged.
        count = answer.sum() if num_items_in_batch is None else num_items_in_batch
        together = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return loss / count * (self.accelerator.num_processes if together else 1)


class AdapterTrainer(FiniteLoss, CompletionTrainer):
    """The trainer that stops at a loss which is not finite. `left_out`: how many rows did not fit into `--max-tokens`."""

    left_out = 0


def build_trainer(
    model: Any,
    tokenizer: Any,
    config: SftConfig,
    pairs: list[InstructionPair],
    output: Path,
    *,
    workers: int,
    gpu: bool,
    callbacks: list[Any],
) -> AdapterTrainer:
    from datasets import Dataset

    rows, left_out = completions.tokenise_all(pairs[: config.limit or None], tokenizer, config.max_tokens, config.language)
    if not rows:
        raise ModelError(f"none of {left_out} pairs fits into {config.max_tokens} tokens: raise --max-tokens")
    trainer = AdapterTrainer(
        model=model,
        # The rows are token ids and labels already, cut as serving cuts.
        args=trl.SFTConfig(
            **arguments(config, output, workers=workers, gpu=gpu, rows=len(rows)), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.left_out = left_out
    lora.in_fp32(model)
    return trainer


def arguments(config: SftConfig, output: Path, *, workers: int, gpu: bool, rows: int) -> dict[str, Any]:
    """The arguments of TRL's trainers."""
    per_epoch = max(1, -(-rows // config.effective))
    steps = config.max_steps or int(per_epoch * config.epochs)
    return trainer_arguments(config, output, gpu=gpu) | {
        "max_steps": config.max_steps or -1,
        "gradient_accumulation_steps": config.accumulation_steps(workers),
        "warmup_steps": int(config.warmup * steps),
        "optim": "adamw_torch",
        "activation_checkpointing": config.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if config.checkpointing else None,
        # On a CPU the frozen weights compute in bf16 without it, and the adapters are quicker as they are.
        "bf16": gpu and config.precision != "fp32",
        "save_steps": min(config.save_steps, per_epoch),
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "max_length": None,
    }


class BleuReporter(Reporter):
    """BLEU before the first step and at each epoch's end, and what training costs."""

    trainer: AdapterTrainer
    model: Any

    def __init__(self, plan: AdapterPlan, tokenizer: Any, heldout: list[InstructionPair], state: dict[str, Any], rank: int) -> None:
        super().__init__(plan, {"epochs": [], "samples": [], "seconds": 0.0, "tokens": 0, "peak_gb": 0.0, "done": 0} | state, rank)
        self._plan, self._tokenizer, self._heldout = plan, tokenizer, heldout
        self._step_started = 0.0

    def begin(self, trainer: Any, model: Any) -> None:
        """Follow this training."""
        self.trainer, self.model = trainer, model
        self.progress["left_out"] = trainer.left_out
        if trainer.left_out:
            self.note({"left_out": trainer.left_out, "why": f"longer than {self._plan.config.max_tokens} tokens (--max-tokens)"})

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if not self.progress["epochs"]:
            self._measure(0, 0)
        super().on_train_begin(args, state, control, **more)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.progress["seconds"] += time.perf_counter() - self._step_started
        self.progress["tokens"] = int(state.num_input_tokens_seen)
        self.progress["peak_gb"] = max(self.progress["peak_gb"], peak_gb())
        if float(state.epoch).is_integer() or state.global_step >= state.max_steps:
            # The epoch's end saves: a checkpoint of before would go on without its BLEU.
            control.should_save = False
        super().on_step_end(args, state, control, **more)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.trouble:
            return
        self._measure(round(state.epoch, 3), state.global_step)
        self.progress["done"] = state.global_step if state.global_step >= state.max_steps else 0
        control.should_save = True

    def _measure(self, epoch: float, step: int) -> None:
        # The others wait at the next step for this worker's gradients.
        if self.rank != 0 or not self._heldout:
            self.progress["epochs"] = [*self.progress["epochs"], {"epoch": epoch, "step": step}]
            return
        figures, texts = bleu.measure(self.model, self._tokenizer, self._heldout, self._plan.new_tokens, self._plan.config)
        self.progress["epochs"] = [*self.progress["epochs"], {"epoch": epoch, "step": step, **figures}]
        self.progress["samples"] = [*self.progress["samples"], {"epoch": epoch, "texts": texts[:SAMPLES]}]
        self.note({"epoch": epoch, "at": step, **figures, "sample": texts[0]})


def peak_gb() -> float:
    """The most memory that this worker has held: of its GPU where it has one."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
