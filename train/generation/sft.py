"""What one worker of `train.enhancer` does: train an adapter with TRL's SFTTrainer, measure BLEU each epoch, go on where it stopped.

How a checkpoint travels and what ends a run is `train.jobs.checkpoints`' business, the model and its adapter are `train.generation.lora`'s.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray import train as ray_train
from trl import SFTConfig, SFTTrainer

from matinee.errors import ModelError, SettingsError
from train.generation import bleu, completions, lora
from train.instructions import Pair, read_pairs
from train.jobs.checkpoints import FiniteLoss, Reporter, ranks, restore

SAMPLES = 8
"""Held-out items whose texts are kept, of before the first step and after each epoch."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes; the defaults are the paper's. `max_steps` 0: what the epochs take."""

    precision: str = "nf4"
    rank: int = 16
    alpha: int = 16
    dropout: float = 0.0
    epochs: float = 3
    batch: int = 2
    effective: int = 8
    lr: float = 2e-4
    warmup: float = 0.03
    schedule: str = "linear"
    weight_decay: float = 0.01
    max_tokens: int = 256
    max_steps: int = 0
    limit: int = 0
    heldout: int = 64
    checkpointing: bool = True
    seed: int = 0
    save_steps: int = 50

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def accumulate(self, workers: int) -> int:
        """Batches that one step adds up on each worker."""
        steps, rest = divmod(self.effective, self.batch * workers)
        if rest or not steps:
            raise SettingsError(
                f"--effective {self.effective} is no multiple of {self.batch * workers} (--batch {self.batch} on {workers} workers)"
            )
        return steps


def fit(config: dict[str, Any]) -> None:
    """The training loop of one worker; `config` is `train.enhancer`'s plan."""
    folder = Path(config["instructions"])
    train_adapter(
        config, Recipe(**config["recipe"]), read_pairs(folder / "train.jsonl"), folder / "heldout.jsonl", BleuReporter, trainer_for
    )


def train_adapter(
    config: dict[str, Any],
    recipe: Recipe,
    rows: Sequence[Any],
    heldout: Path,
    follow: Callable[..., "BleuReporter"],
    trainer_for: Callable[..., Any],
) -> None:
    """What training on pairs and on judgments have in common: one worker's run of the trainer that `trainer_for` makes, from the last
    checkpoint to the end, followed by a reporter that measures on the pairs of `heldout`."""
    rank, workers = ranks()
    torch.set_num_threads(config["threads"] or torch.get_num_threads())
    work = Path(config["work"])
    state, resume = restore(work, rank)
    if state.get("done"):
        # It was stopped between its last checkpoint and the end.
        ray_train.report({"step": state["done"], **state})
        return
    device = f"cuda:{torch.cuda.current_device()}" if config["gpu"] else "cpu"
    model, tokenizer = prepared(Path(config["base"]), recipe, device, config["adapter"])
    reporter = follow(config, recipe, tokenizer, read_pairs(heldout)[: recipe.heldout], state, rank)
    trainer = trainer_for(model, tokenizer, recipe, rows, work / "trainer", workers=workers, gpu=config["gpu"], callbacks=[reporter])
    reporter.begin(trainer, model)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    # Without a checkpoint: the last step's is already reported, and every worker has to say that it is done.
    ray_train.report(reporter.summary(trainer.state.global_step))


def prepared(base: Path, recipe: Recipe, device: str, adapter: str | None = None) -> tuple[Any, Any]:
    """The model with the adapter to train, and its tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = lora.load_base(base, recipe.precision, device)
    if adapter is not None:
        return lora.readapt(model, Path(adapter)), tokenizer
    return lora.adapt(model, rank=recipe.rank, alpha=recipe.alpha, dropout=recipe.dropout, seed=recipe.seed), tokenizer


class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, which on a CPU would project the prompts too onto 262,144 tokens: most of a step, for a loss that ignores them."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs["labels"][:, 1:]
        if labels.is_cuda or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        told = labels != completions.IGNORED
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][told],))
        try:
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        finally:
            hook.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[told], reduction="sum")
        # As in TRL: the tokens of all workers are counted together, and their gradients averaged.
        count = told.sum() if num_items_in_batch is None else num_items_in_batch
        together = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return loss / count * (self.accelerator.num_processes if together else 1)


class FiniteTrainer(FiniteLoss, CompletionTrainer):
    """The trainer that stops at a loss which is not finite. `left_out`: how many rows did not fit into `--max-tokens`."""

    left_out = 0


def trainer_for(
    model: Any, tokenizer: Any, recipe: Recipe, pairs: list[Pair], output: Path, *, workers: int, gpu: bool, callbacks: list[Any]
) -> FiniteTrainer:
    from datasets import Dataset

    rows, left_out = completions.rows(pairs[: recipe.limit or None], tokenizer, recipe.max_tokens)
    if not rows:
        raise ModelError(f"none of {left_out} pairs fits into {recipe.max_tokens} tokens: raise --max-tokens")
    trainer = FiniteTrainer(
        model=model,
        # The rows are token ids and labels already, cut as serving cuts.
        args=SFTConfig(
            **arguments(recipe, output, workers=workers, gpu=gpu, rows=len(rows)), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.left_out = left_out
    lora.in_fp32(model)
    return trainer


def arguments(recipe: Recipe, output: Path, *, workers: int, gpu: bool, rows: int) -> dict[str, Any]:
    """What TRL's trainers are told: saving by steps, so that a kill in mid-epoch loses little."""
    per_epoch = max(1, -(-rows // recipe.effective))
    steps = recipe.max_steps or int(per_epoch * recipe.epochs)
    return {
        "output_dir": str(output),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": recipe.accumulate(workers),
        "learning_rate": recipe.lr,
        "warmup_steps": int(recipe.warmup * steps),
        "lr_scheduler_type": recipe.schedule,
        "weight_decay": recipe.weight_decay,
        "optim": "adamw_torch",
        "activation_checkpointing": recipe.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if recipe.checkpointing else None,
        # On a CPU the frozen weights compute in bf16 without it, and the adapters are quicker as they are.
        "bf16": gpu and recipe.precision != "fp32",
        "save_strategy": "steps",
        "save_steps": min(recipe.save_steps, per_epoch),
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "report_to": "none",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "use_cpu": not gpu,
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "ddp_find_unused_parameters": False,
        "max_length": None,
    }


class BleuReporter(Reporter):
    """BLEU before the first step and at each epoch's end, and what training costs."""

    trainer: FiniteTrainer
    model: Any

    def __init__(
        self, config: dict[str, Any], recipe: Recipe, tokenizer: Any, heldout: list[Pair], state: dict[str, Any], rank: int
    ) -> None:
        super().__init__(config, {"epochs": [], "samples": [], "seconds": 0.0, "tokens": 0, "peak_gb": 0.0, "done": 0} | state, rank)
        self._recipe, self._tokenizer, self._heldout = recipe, tokenizer, heldout
        self._new_tokens, self._began = int(config["new_tokens"]), 0.0

    def begin(self, trainer: Any, model: Any) -> None:
        """Follow this training."""
        self.trainer, self.model = trainer, model
        self.progress["left_out"] = trainer.left_out
        if trainer.left_out:
            self.note({"left_out": trainer.left_out, "why": f"longer than {self._recipe.max_tokens} tokens (--max-tokens)"})

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not self.progress["epochs"]:
            self._measure(0, 0)
        super().on_train_begin(args, state, control, **given)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.progress["seconds"] += time.perf_counter() - self._began
        self.progress["tokens"] = int(state.num_input_tokens_seen)
        self.progress["peak_gb"] = max(self.progress["peak_gb"], peak_gb())
        if float(state.epoch).is_integer() or state.global_step >= state.max_steps:
            # The epoch's end saves: a checkpoint of before would go on without its BLEU.
            control.should_save = False
        super().on_step_end(args, state, control, **given)

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
        found, texts = bleu.measure(self.model, self._tokenizer, self._heldout, self._new_tokens, self._recipe.precision)
        self.progress["epochs"] = [*self.progress["epochs"], {"epoch": epoch, "step": step, **found}]
        self.progress["samples"] = [*self.progress["samples"], {"epoch": epoch, "texts": texts[:SAMPLES]}]
        self.note({"epoch": epoch, "at": step, **found, "sample": texts[0]})


def peak_gb() -> float:
    """The most memory that this worker has held: of its GPU where it has one."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
