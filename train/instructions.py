"""Make the enhancer's training pairs: an item as the enhancer sees it, and the text that it should write.

    python -m train.instructions work/prepared --target words --sets EVAL --out work/instructions
    python -m train.instructions work/prepared --target overview --given title          # the paper's Figure 2: title -> overview
    python -m train.instructions work/prepared --target teacher --teacher work/descriptions.jsonl
    python -m train.instructions work/prepared --smoke --out work/instructions          # 60 pairs

`overview`: title, or all facts but the overview, -> overview. `teacher`: descriptions by a larger model, or the best of several by the base
itself (`python -m train.describe work/prepared --retries 4 --out work/descriptions.jsonl`), kept only where the metadata checks find
nothing. `words`: what other people said of the item, from the training side of the text sets (document expansion). One text has the
keywords first (also what people searched for before they chose it), then the sentences, as each set's `set.json` says what its texts are.

Writes `train.jsonl`, `heldout.jsonl`, `dev.jsonl` and `manifest.json`. No item of the dev or test split is in `train.jsonl`. BLEU is
measured on `heldout.jsonl`: items of the test split; for `words` of the dev split, since its test labels are there to judge finished
models. What chooses between models (`train.preference`) reads `dev.jsonl`, which may be empty.
Does not tokenise (`train.generation.completions`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.splits import Entry, Split, order_key, read_entries
from matinee.languages import ENGLISH
from matinee.settings.load import load_settings
from matinee.text import templates
from train.generation.instruction_pairs import InputFields, InstructionPair, Target, items_of, make_pairs, word_sets, write_pairs
from train.jobs import command, manifests

HINTS = {
    "overview": "the catalogue has no overviews there",
    "teacher": "`train.describe` has to describe items of that split too (see its --only)",
    "words": "sets need texts for it, as `matinee evalset make --clicks` or `--field` makes them",
}

SMOKE = 60
SIDES: tuple[Split, ...] = ("train", "dev")
"""The sides of evaluation sets that the target `words` reads."""


@dataclass(frozen=True, kw_only=True)
class InstructionsOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/instructions")
    target: Annotated[Target, typer.Option(help="text to learn: overview, teacher or words")] = "overview"
    given: Annotated[
        InputFields, typer.Option(help="with --target overview, what the prompt shows: facts (all but the overview) or title")
    ] = "facts"
    sets: Annotated[Path | None, typer.Option(help="with --target words: folder of evaluation sets")] = None
    teacher: Annotated[Path | None, typer.Option(help="with --target teacher: JSONL with id and description")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="most pairs to write, and a tenth as many held out")] = None
    seed: Annotated[int, typer.Option(help="random seed of the order, which decides what --limit keeps")] = 0
    smoke: Annotated[bool, typer.Option("--smoke", help=f"a quick trial: {SMOKE} pairs")] = False

    def __post_init__(self) -> None:
        if (self.target == "words") != (self.sets is not None):
            raise SettingsError("--target words and --sets go together: the words are those of evaluation sets")
        if (self.target == "teacher") != (self.teacher is not None):
            raise SettingsError("--target teacher and --teacher go together: `python -m train.describe` writes such a file")


@dataclass(frozen=True)
class Sources:
    """The items to make pairs of, and the language of their texts. `settings` and `inputs` go into the manifest."""

    entries: list[Entry]
    language: str
    settings: dict[str, Any]
    inputs: dict[str, str]


def main(options: InstructionsOptions) -> None:
    """Write the pairs that train.enhancer learns from."""
    target, out = options.target, options.out
    sources = load(options)
    if manifests.is_complete(out, "instructions", sources.settings, sources.inputs):
        command.echo(f"{out} is complete already: nothing to do")
        return
    heldout: Split = "dev" if target == "words" else "test"
    limit = sources.settings["limit"]
    tenth = limit and max(1, limit // 10)
    files: tuple[tuple[str, Split, int | None], ...] = (("train", "train", limit), ("heldout", heldout, tenth), ("dev", "dev", tenth))
    counts: dict[str, Any] = {}
    manifests.reopen(out)
    for name, split, most in files:
        items = items_of(sources.entries, split)
        made, remarks = make_pairs(items, target, options.given, options.sets, options.teacher, split, sources.language)
        pairs = sample(made, most, options.seed)
        if not pairs and name != "dev":
            raise SourceError(f"no item of the split {split} has a text for the target {target}: {HINTS[target]} (found: {remarks or 0})")
        write_pairs(pairs, out / f"{name}.jsonl")
        counts[name] = {"pairs": len(pairs), "split": split, **remarks}
    manifests.write(out, "instructions", sources.settings, sources.inputs, counts=counts)
    command.echo(f"{out}: {counts}")


def load(options: InstructionsOptions) -> Sources:
    manifest = manifests.read(options.prepared, "prepare")
    language = load_settings().language
    settings = {
        "target": options.target,
        "given": options.given,
        "limit": min(options.limit or SMOKE, SMOKE) if options.smoke else options.limit,
        "seed": options.seed,
        "text_version": templates.TEXT_VERSION,
    }
    settings |= {} if language == ENGLISH else {"language": language}
    inputs = dict(manifest["outputs"]) | input_hashes(options.sets, options.teacher)
    return Sources(read_entries(options.prepared), language, settings, inputs)


def sample(pairs: Sequence[InstructionPair], most: int | None, seed: int) -> list[InstructionPair]:
    """In an order that only the seed and the ids decide."""
    return sorted(pairs, key=lambda pair: order_key(seed, pair.id))[:most]


def input_hashes(sets: Path | None, teacher: Path | None) -> dict[str, str]:
    if sets is not None:
        return manifests.set_hashes(sets, (queries.name for split in SIDES for queries in word_sets(sets, split)), SIDES)
    return manifests.hashes([teacher], teacher.parent) if teacher is not None and teacher.is_file() else {}


app = command.job_app(InstructionsOptions, main)

if __name__ == "__main__":
    app()
