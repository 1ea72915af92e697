"""What decides how an adapter is trained, by supervised fine-tuning and by preference optimisation, and what their workers get.

Knows neither models nor trainers, so a command line needs no torch to read it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from matinee.errors import SettingsError
from matinee.languages import ENGLISH
from train.jobs.command import Schedule
from train.jobs.launch import TrainingPlan

SAMPLES = 8
"""Held-out items whose texts are kept, of before the first step and after each epoch."""

Precision = Annotated[str, typer.Option(help="precision of the frozen base model: nf4 (double quantisation), int8, bf16 or fp32")]
Epochs = Annotated[float, typer.Option(min=0.01, help="passes over the training data; a fraction is possible")]
LearningRate = Annotated[float, typer.Option(min=0, help="the highest learning rate")]


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Everything that decides what supervised fine-tuning computes, and goes into its manifest. The defaults are the paper's."""

    precision: Precision = "nf4"
    rank: Annotated[int, typer.Option(min=1, help="rank of the LoRA matrices (r)")] = 16
    alpha: Annotated[int, typer.Option(min=1, help="scale of the LoRA update (alpha)")] = 16
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="dropout probability of the LoRA layers")] = 0.0
    epochs: Epochs = 3
    batch: Annotated[int, typer.Option(min=1, help="examples that each worker computes at a time")] = 2
    effective: Annotated[int, typer.Option(min=1, help="examples in one optimiser step, on all workers together")] = 8
    lr: LearningRate = 2e-4
    warmup: Annotated[float, typer.Option(min=0, max=0.9, help="part of the steps in which the rate rises")] = 0.03
    schedule: Schedule = "linear"
    weight_decay: Annotated[float, typer.Option(min=0, help="weight decay of the optimiser, AdamW")] = 0.01
    max_tokens: Annotated[int, typer.Option(min=32, help="most tokens of prompt and text together")] = 256
    max_steps: Annotated[int, typer.Option(min=0, help="stop after so many steps; 0: when the epochs are over")] = 0
    limit: Annotated[int, typer.Option(min=0, help="most examples to train on; 0: all")] = 0
    heldout: Annotated[int, typer.Option(min=0, help="held-out items for BLEU")] = 64
    checkpointing: Annotated[bool, typer.Option(help="compute activations again to save memory")] = True
    save_steps: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 50
    seed: Annotated[int, typer.Option(help="random seed of the training")] = 0
    language: str = ENGLISH

    def as_settings(self) -> dict[str, Any]:
        """The configuration as a manifest has it. English is not in it, as in manifests of before there were other languages."""
        values = asdict(self)
        return {name: value for name, value in values.items() if (name, value) != ("language", ENGLISH)}

    def accumulation_steps(self, workers: int) -> int:
        """Batches that one step adds up on each worker."""
        workers = max(1, workers)
        steps, rest = divmod(self.effective, self.batch * workers)
        if rest or not steps:
            raise SettingsError(
                f"--effective {self.effective} is no multiple of {self.batch * workers} (--batch {self.batch} on {workers} workers)"
            )
        return steps


@dataclass(frozen=True, kw_only=True)
class DpoConfig(SftConfig):
    """The same for direct preference optimisation. It tunes an adapter that exists, whose shape is no option."""

    FIXED: ClassVar = ("rank", "alpha", "dropout", "warmup", "schedule", "weight_decay", "limit")

    epochs: Epochs = 1
    lr: LearningRate = 1e-5
    warmup: float = 0.1
    heldout: Annotated[int, typer.Option(min=1, help="held-out items for the guard")] = 64
    beta: Annotated[float, typer.Option(min=0.001, help="the higher, the closer it stays to the adapter it came from")] = 0.1
    smoothing: Annotated[float, typer.Option(min=0, max=0.49, help="the share of answers that may be slips")] = 0.0


@dataclass(frozen=True, kw_only=True)
class AdapterPlan(TrainingPlan):
    """What a worker trains, from what, and what it measures on. `examples` are pairs (SFT) or judgments (DPO)."""

    config: SftConfig
    base: Path
    adapter: Path | None
    examples: Path
    heldout: Path
    new_tokens: int


@dataclass(frozen=True, kw_only=True)
class DpoPlan(AdapterPlan):
    config: DpoConfig
