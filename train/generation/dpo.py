"""What a worker of `train.preference` trains with: direct preference optimisation of an adapter, by TRL's DPOTrainer.

The reference is the adapter as it came, a frozen copy beside the one that is trained. Measured and resumed as in
`train.generation.sft`. Does not decide whether the result may be published (`train.preference`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trl

from matinee.errors import ModelError
from matinee.languages import ENGLISH
from matinee.text import templates
from train.generation import completions, sft
from train.generation.config import DpoConfig
from train.generation.instruction_pairs import InstructionPair
from train.human.judgments import Judgment
from train.jobs.checkpoints import FiniteLoss


class PreferenceTrainer(FiniteLoss, trl.DPOTrainer):  # type: ignore[misc]
    """TRL's trainer that stops at a loss which is not finite, and takes rows that are token ids already."""

    left_out = 0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        # TRL's own would end a chat model's answer with another token than serving stops at, and cut answers instead of overviews.
        return dataset


def build_trainer(
    model: Any,
    tokenizer: Any,
    config: DpoConfig,
    judgments: Sequence[Judgment],
    output: Path,
    *,
    workers: int,
    gpu: bool,
    callbacks: list[Any],
) -> PreferenceTrainer:
    from datasets import Dataset

    judgments = judgments[: config.limit or None]
    rows = [row for row in (as_ids(judgment, tokenizer, config.max_tokens, config.language) for judgment in judgments) if row]
    if not rows:
        raise ModelError(f"none of {len(judgments)} judgments fits into {config.max_tokens} tokens: raise --max-tokens")
    trainer = PreferenceTrainer(
        model=model,
        args=trl.DPOConfig(
            **sft.arguments(config, output, workers=workers, gpu=gpu, rows=len(rows)),
            beta=config.beta,
            label_smoothing=config.smoothing,
            loss_type=["robust" if config.smoothing else "sigmoid"],
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.left_out = len(judgments) - len(rows)
    _start_at_reference(model)
    return trainer


def _start_at_reference(model: Any) -> None:
    """The trained adapter in fp32, exactly as it came: TRL has rounded it to bf16 on quantised models, but not its frozen copy."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = model.get_parameter(name.replace(".default.", ".ref.")).data.detach().float().clone()


def as_ids(judgment: Judgment, tokenizer: Any, max_tokens: int, language: str = ENGLISH) -> dict[str, list[int]] | None:
    """One prompt with both answers, as serving would tokenise them; the overview is cut until they fit. `None` where they never do."""
    for share in completions.SHARES:
        item = templates.shorten_overview(judgment.item, share)
        both = [
            completions.tokenise(InstructionPair(judgment.id, item, text), tokenizer, max_tokens, language)
            for text in (judgment.chosen, judgment.rejected)
        ]
        split = [_split(row) for row in both if row is not None]
        # A longer answer may have had its overview cut already: then both get the shorter one.
        if len(split) == 2 and split[0][0] == split[1][0]:
            return {"prompt_ids": split[0][0], "chosen_ids": split[0][1], "rejected_ids": split[1][1]}
    return None


def _split(row: completions.TokenisedPair) -> tuple[list[int], list[int]]:
    start = row.labels.count(completions.IGNORED)
    return row.input_ids[:start], row.input_ids[start:]


class MarginReporter(sft.BleuReporter):
    """How far the model tells the better descriptions from the worse ones, beside what `train.generation.sft` reports."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "rewards/margins" in logs:
            margin, accuracy = float(logs["rewards/margins"]), float(logs["rewards/accuracies"])
            self.progress |= {"margin": margin, "accuracy": accuracy}
            self.note({"at": state.global_step, "margin": margin, "accuracy": accuracy})
        super().on_log(args, state, control, logs, **more)
