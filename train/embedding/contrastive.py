"""Contrastive training's parts: the model to tune, the data sets, the losses, the arguments. Pure set-up, the same on every worker.

Knows sentence-transformers, not Ray (`train.embedding.worker` runs these parts) and not where pairs come from (`train.triplets`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from matinee.errors import SettingsError, SourceError
from matinee.files import read_jsonl
from matinee.models.convert import quiet
from matinee.models.embedder import load_model
from matinee.text import templates
from train.jobs.arguments import trainer_arguments
from train.jobs.command import Schedule
from train.jobs.launch import TrainingPlan

Loss = Literal["triplet", "mnr", "cached", "guided"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Everything that decides what a training run computes, and goes into its manifest.

    The defaults measured best on development queries (docs/experiments.md). The paper's are in `train.embedder`'s docstring.
    """

    loss: Annotated[Loss, typer.Option(help="loss function: mnr, cached, guided or triplet")] = "mnr"
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training data")] = 1
    batch: Annotated[
        int, typer.Option(min=2, help="pairs in a batch of each worker; with less memory use --batch 32 --lr 1e-4, or --loss cached")
    ] = 128
    lr: Annotated[float, typer.Option(help="the highest learning rate")] = 2e-4
    warmup: Annotated[float, typer.Option(min=0, max=0.9, help="part of the steps in which the rate rises")] = 0.1
    schedule: Schedule = "linear"
    weight_decay: Annotated[float, typer.Option(min=0, help="weight decay of the optimiser, AdamW")] = 0.01
    scale: Annotated[float, typer.Option(help="inverse temperature of the in-batch losses")] = 20.0
    margin: Annotated[float, typer.Option(help="margin of the triplet loss")] = 0.3
    negatives: Annotated[bool, typer.Option("--negatives", help="use the mined negatives")] = False
    lora: Annotated[int, typer.Option(min=0, help="rank of LoRA adapters; 0 trains all weights")] = 0
    matryoshka: Annotated[
        list[int], typer.Option(help="a shorter vector length to learn too, for uses of your own (serving takes whole vectors); repeatable")
    ] = field(default_factory=list)
    max_tokens: Annotated[int, typer.Option(min=16, help="most tokens of a text in training; the rest is cut off")] = 128
    patience: Annotated[int, typer.Option(min=1, help="epochs without a gain before the training stops")] = 2
    save_steps: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 200
    seed: Annotated[int, typer.Option(help="random seed of the training")] = 0
    bf16: Annotated[bool | None, typer.Option("--bf16/--fp32", help="mixed precision; by default where the hardware has it")] = None

    def check(self) -> None:
        """Raises `SettingsError` where options contradict each other."""
        if self.loss == "triplet" and not self.negatives:
            raise SettingsError("--loss triplet needs hard negatives: add --negatives")
        if self.loss == "guided" and self.matryoshka:
            raise SettingsError("--loss guided compares with a guide's vectors at full length: leave --matryoshka out")


@dataclass(frozen=True, kw_only=True)
class EmbedderPlan(TrainingPlan):
    """What a worker of `train.embedder` trains, from what, and what it measures on."""

    config: ContrastiveConfig
    base: Path
    triplets: Path
    prepared: Path
    sets: Path | None
    template: templates.Template
    pool: int


def load_base(folder: Path, device: str | None = None) -> Any:
    """A model in fp32: Granite's own type is bf16, where steps of 1e-4 are lost to rounding."""
    return load_model(folder, torch.float32, device=device)


def load_trainable(folder: Path, config: ContrastiveConfig, device: str | None) -> Any:
    """The base model as it is trained: texts cut at `max_tokens`, with fresh adapters for LoRA."""
    model = load_base(folder, device)
    # No card is written: its examples would be looked for in each run.
    model.model_card_data.generate_widget_examples = False
    model.max_seq_length = min(config.max_tokens, model.max_seq_length or config.max_tokens)
    if config.lora:
        from peft import LoraConfig

        # Every linear layer of the encoder: what they are called differs between BERT, RoBERTa and ModernBERT.
        layers = model.transformers_model.named_modules()
        targets = [name for name, layer in layers if isinstance(layer, torch.nn.Linear) and not name.startswith("pooler")]
        model.add_adapter(LoraConfig(r=config.lora, lora_alpha=2 * config.lora, lora_dropout=0.0, target_modules=targets, bias="none"))
    # BERT's and RoBERTa's own pooler takes no part in the vector, and several workers would wait for its gradients for ever.
    for name, weight in model.named_parameters():
        if ".pooler." in name:
            weight.requires_grad_(False)
    return model


def finalise(best: Path, base: Path, config: ContrastiveConfig, into: Path) -> None:
    """The trained model as one that serves: adapters merged into fp32 weights, the base model's own limits, safetensors."""
    model = load_base(base if config.lora else best, "cpu")
    if config.lora:
        from peft import PeftModel

        transformer = model[0]
        transformer.model = PeftModel.from_pretrained(transformer.model, str(best)).merge_and_unload()
    else:
        model.max_seq_length = load_base(base, "cpu").max_seq_length
    with quiet():
        model.save(str(into), create_model_card=False, safe_serialization=True)


def data_sets(folder: Path, config: ContrastiveConfig) -> Any:
    """Source -> data set of `anchor`, `positive` (and `negative`): the trainer fills each batch from one of them."""
    from datasets import Dataset

    columns = ["anchor", "positive", *(["negative"] if config.negatives else [])]
    sets = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = read_jsonl(path)
        if config.negatives and any("negative" not in row for row in rows):
            raise SourceError(f"{path} has rows without a negative: make it with `python -m train.triplets --negatives both`")
        # A source smaller than a batch would give none at all.
        if len(rows) >= 2:
            sets[path.stem] = Dataset.from_list([{column: row[column] for column in columns} for row in rows])
    if not sets:
        raise SourceError(f"{folder} has no training rows: run `python -m train.triplets`")
    return sets


def steps_per_epoch(sizes: list[int], batch: int, workers: int) -> int:
    return sum(math.ceil(size / batch / workers) for size in sizes)


def loss_for(model: Any, config: ContrastiveConfig, base: Path, workers: int) -> Any:
    """The configured loss. The guide of the guided form is the base model as it was."""
    from sentence_transformers.sentence_transformer import losses

    gather = {"gather_across_devices": workers > 1}
    match config.loss:
        case "triplet":
            distance = losses.TripletDistanceMetric.COSINE
            loss = losses.TripletLoss(model, distance_metric=distance, triplet_margin=config.margin)
        case "mnr":
            loss = losses.MultipleNegativesRankingLoss(model, scale=config.scale, **gather)
        case "cached":
            loss = losses.CachedMultipleNegativesRankingLoss(model, scale=config.scale, mini_batch_size=16, **gather)
        case "guided":
            guide = load_base(base, str(model.device))
            loss = losses.CachedGISTEmbedLoss(model, guide, temperature=1 / config.scale, mini_batch_size=16, **gather)
    return losses.MatryoshkaLoss(model, loss, list(_matryoshka_lengths(model, config))) if config.matryoshka else loss


def _matryoshka_lengths(model: Any, config: ContrastiveConfig) -> tuple[int, ...]:
    full = int(model.get_embedding_dimension())
    if any(not 8 <= length < full for length in config.matryoshka):
        raise SettingsError(f"--matryoshka {tuple(config.matryoshka)}: each must be at least 8 and below the model's own {full}")
    return (full, *sorted(config.matryoshka, reverse=True))


def arguments(config: ContrastiveConfig, model: Any, output: Path, *, gpu: bool, log_steps: int) -> Any:
    """The trainer's arguments."""
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers, MultiDatasetBatchSamplers

    prompts = {kind: text for kind, text in (model.prompts or {}).items() if text}
    columns = {"anchor": prompts.get("query"), "positive": prompts.get("document"), "negative": prompts.get("document")}
    return SentenceTransformerTrainingArguments(
        **trainer_arguments(config, output, gpu=gpu),
        warmup_steps=config.warmup,
        save_steps=config.save_steps,
        logging_steps=log_steps,
        bf16=bool(config.bf16),
        # The same text twice in a batch would be its own negative.
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        prompts={column: text for column, text in columns.items() if text} or None,
    )


def published_metrics(best: Mapping[str, Any]) -> dict[str, float]:
    """What is published of a run's best epoch."""
    return {f"dev_{name}_ndcg": value for name, value in best["dev"].items()} | {"dev_gain": best["score"]}
