"""Contrastive training's parts: the model to tune, the data sets, the losses, the arguments. Pure set-up, the same on every worker.

Knows sentence-transformers, not Ray (`train.embedding.fitting` runs these parts) and not where pairs come from (`train.triplets`).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import torch

from matinee.errors import SettingsError, SourceError
from matinee.models.convert import quiet
from matinee.models.embedder import load_model

Loss = Literal["triplet", "mnr", "cached", "guided"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes. `lora` 0 trains all weights; `matryoshka` are the shorter lengths to learn.

    The defaults are those that measured best on development queries (RESULTS.md); the paper's are in `train.embedder`'s docstring.
    """

    loss: Loss = "mnr"
    epochs: int = 1
    batch: int = 128
    lr: float = 2e-4
    warmup: float = 0.1
    schedule: str = "linear"
    weight_decay: float = 0.01
    scale: float = 20.0
    margin: float = 0.3
    lora: int = 0
    matryoshka: tuple[int, ...] = ()
    max_tokens: int = 128
    negatives: bool = False
    patience: int = 2
    seed: int = 0
    save_steps: int = 200
    bf16: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Recipe":
        return cls(**values | {"matryoshka": tuple(values["matryoshka"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"matryoshka": list(self.matryoshka)}

    def check(self) -> None:
        if self.loss == "triplet" and not self.negatives:
            raise SettingsError("--loss triplet needs --negatives: a triplet without a negative is none")
        if self.loss == "guided" and self.matryoshka:
            raise SettingsError("--loss guided compares with a guide's vectors at full length: leave --matryoshka out")


def load_base(folder: Path, device: str | None = None) -> Any:
    """A model in fp32: Granite's own type is bf16, where steps of 1e-4 are lost to rounding."""
    return load_model(folder, torch.float32, device=device)


def trainable(folder: Path, recipe: Recipe, device: str | None) -> Any:
    """The base model as it is trained: texts cut at `max_tokens`, with fresh adapters where LoRA is asked for."""
    model = load_base(folder, device)
    model.max_seq_length = min(recipe.max_tokens, model.max_seq_length or recipe.max_tokens)
    if recipe.lora:
        from peft import LoraConfig

        # Every linear layer of the encoder: what they are called differs between BERT, RoBERTa and ModernBERT.
        layers = model.transformers_model.named_modules()
        targets = [name for name, layer in layers if isinstance(layer, torch.nn.Linear) and not name.startswith("pooler")]
        model.add_adapter(LoraConfig(r=recipe.lora, lora_alpha=2 * recipe.lora, lora_dropout=0.0, target_modules=targets, bias="none"))
    # BERT's and RoBERTa's own pooler takes no part in the vector, and several workers would wait for its gradients for ever.
    for name, weight in model.named_parameters():
        if ".pooler." in name:
            weight.requires_grad_(False)
    return model


def finalise(best: Path, base: Path, recipe: Recipe, into: Path) -> None:
    """The trained model as one that serves: adapters merged into fp32 weights, the base model's own limits, safetensors."""
    model = load_base(base if recipe.lora else best, "cpu")
    if recipe.lora:
        from peft import PeftModel

        transformer = model[0]
        transformer.model = PeftModel.from_pretrained(transformer.model, str(best)).merge_and_unload()
    else:
        model.max_seq_length = load_base(base, "cpu").max_seq_length
    with quiet():
        model.save(str(into), create_model_card=False, safe_serialization=True)


def data_sets(folder: Path, recipe: Recipe) -> Any:
    """Source -> data set of `anchor`, `positive` (and `negative`): the trainer fills each batch from one of them."""
    from datasets import Dataset

    columns = ["anchor", "positive", *(["negative"] if recipe.negatives else [])]
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        if recipe.negatives and any("negative" not in row for row in rows):
            raise SourceError(f"{path} has rows without a negative: make it with `python -m train.triplets --negatives both`")
        # A source smaller than a batch would give none at all.
        if len(rows) >= 2:
            found[path.stem] = Dataset.from_list([{column: row[column] for column in columns} for row in rows])
    if not found:
        raise SourceError(f"{folder} has no training rows: run `python -m train.triplets`")
    return found


def steps_per_epoch(sizes: list[int], batch: int, workers: int) -> int:
    return sum(math.ceil(size / batch / workers) for size in sizes)


def loss_for(model: Any, recipe: Recipe, base: Path, workers: int) -> Any:
    """The loss that the recipe names. The guide of the guided form is the base model as it was."""
    from sentence_transformers.sentence_transformer import losses

    gather = {"gather_across_devices": workers > 1}
    match recipe.loss:
        case "triplet":
            distance = losses.TripletDistanceMetric.COSINE
            loss = losses.TripletLoss(model, distance_metric=distance, triplet_margin=recipe.margin)
        case "mnr":
            loss = losses.MultipleNegativesRankingLoss(model, scale=recipe.scale, **gather)
        case "cached":
            loss = losses.CachedMultipleNegativesRankingLoss(model, scale=recipe.scale, mini_batch_size=16, **gather)
        case "guided":
            guide = load_base(base, str(model.device))
            loss = losses.CachedGISTEmbedLoss(model, guide, temperature=1 / recipe.scale, mini_batch_size=16, **gather)
    return losses.MatryoshkaLoss(model, loss, list(_lengths(model, recipe))) if recipe.matryoshka else loss


def _lengths(model: Any, recipe: Recipe) -> tuple[int, ...]:
    full = int(model.get_embedding_dimension())
    if any(not 8 <= length < full for length in recipe.matryoshka):
        raise SettingsError(f"--matryoshka {recipe.matryoshka}: each must be at least 8 and below the model's own {full}")
    return (full, *sorted(recipe.matryoshka, reverse=True))


def arguments(recipe: Recipe, model: Any, output: Path, *, gpu: bool, log_steps: int) -> Any:
    """The trainer's arguments: saving by steps, so that a kill in mid-epoch loses little."""
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers, MultiDatasetBatchSamplers

    given = {kind: text for kind, text in (model.prompts or {}).items() if text}
    columns = {"anchor": given.get("query"), "positive": given.get("document"), "negative": given.get("document")}
    return SentenceTransformerTrainingArguments(
        output_dir=str(output),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.lr,
        warmup_steps=recipe.warmup,
        lr_scheduler_type=recipe.schedule,
        weight_decay=recipe.weight_decay,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=1,
        logging_steps=log_steps,
        logging_nan_inf_filter=False,
        report_to="none",
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not gpu,
        bf16=recipe.bf16,
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        # The same text twice in a batch would be its own negative.
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        prompts={column: text for column, text in columns.items() if text} or None,
        ddp_find_unused_parameters=False,
    )
