"""Describe a catalogue offline and in bulk: prepared items -> JSONL of (id, description), by the enhancer with or without an adapter.

    python -m train.describe work/prepared --out work/descriptions.jsonl
    python -m train.describe work/prepared --out work/tuned.jsonl --adapter work/enhancer/enhancer-lora  # or artifact:DIGEST
    python -m train.describe work/prepared --out work/some.jsonl --sample 2000 --seed 1 --first EVAL
    python -m train.describe work/prepared --out work/hidden.jsonl --hide-overview                     # title, year, genres, people only
    python -m train.describe work/prepared --out work/rated.jsonl --only test --sample 40              # what `train.ratings` draws 20 of
    python -m train.describe work/prepared --out work/two.jsonl --title Inception --title Interstellar
    python -m train.describe work/prepared --out work/smoke.jsonl --smoke                              # four items

CTranslate2 int8 on a CPU, bf16 on a GPU, 48 items at a time. Run it again and it goes on where it was; with other settings or another model
the same file is refused. What serving would show is checked against the metadata; `--unchecked` keeps what the model itself said, and
`--hide-overview` implies it, because nothing is left to check a plot against. A sample is by seed alone: a larger one holds the smaller.
`--first` puts what evaluation sets look for to its head, so that a part of a catalogue can be judged.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, Split, read_entries
from matinee.files import write_atomically
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.load import load_settings
from matinee.settings.models import EnhancerSettings
from train.generation.selection import query_weights, ranked_sample, with_titles
from train.jobs import command, manifests

BATCHES = 8
"""That many are sorted by length together, and written together."""


@dataclass(frozen=True, kw_only=True)
class DescribeOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    out: Annotated[Path, typer.Option(help="JSONL file to write")] = Path("work/descriptions.jsonl")
    adapter: Annotated[str | None, typer.Option(help="a PEFT adapter's folder or artifact:DIGEST; by default the settings' own")] = None
    precision: Annotated[
        str | None, typer.Option(help="numeric precision of the model, with the values of the setting enhancer.precision")
    ] = None
    batch: Annotated[int, typer.Option(min=1, max=256, help="items that the model describes at a time")] = 48
    retries: Annotated[int, typer.Option(min=0, max=5, help="new tries for a description that the metadata contradicts")] = 1
    tokens: Annotated[int | None, typer.Option(min=8, max=1024, help="most tokens of a description; by default the settings' own")] = None
    hide_overview: Annotated[bool, typer.Option("--hide-overview", help="tell the model title, year, genres and people only")] = False
    unchecked: Annotated[bool, typer.Option("--unchecked", help="keep what the model said, whether the metadata bears it out or not")] = (
        False
    )
    title: Annotated[list[str], typer.Option(help="describe only the items with this title; repeatable")] = field(default_factory=list)
    only: Annotated[Split | None, typer.Option(help="describe only the items of this split: train, dev or test")] = None
    sample: Annotated[int | None, typer.Option(min=1, help="describe only so many items, drawn at random")] = None
    seed: Annotated[int, typer.Option(help="random seed of the sample")] = 0
    first: Annotated[Path | None, typer.Option(help="folder of evaluation sets; the answers to their queries are described first")] = None
    split: Annotated[Split, typer.Option(help="split of the sets in --first: train, dev or test")] = "dev"
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: four items")] = False

    @property
    def checked(self) -> bool:
        """Nothing is left to check a plot against where the overview is hidden."""
        return not (self.unchecked or self.hide_overview)


def main(options: DescribeOptions) -> None:
    """Write a description of every item, or of a sample."""
    out = options.out
    manifest = manifests.read(options.prepared, "prepare")
    entries = load(options)
    enhancer, settings = load_enhancer(options)
    model = enhancer.info() | {
        **{name: getattr(settings, name) for name in ("max_new_tokens", "retries", "temperature", "repetition_penalty", "seed")},
        "hide_overview": options.hide_overview,
        "unchecked": not options.checked,
    }
    done = resume(out, {"job": "describe", "model": model, "inputs": manifest["outputs"]})
    todo = [entry for entry in entries if entry.id not in done]
    with out.open("ab") as file, progress_bar() as progress:
        bar = progress.add_task("describe", total=len(entries), completed=len(entries) - len(todo))
        for start in range(0, len(todo), BATCHES * options.batch):
            part = todo[start : start + BATCHES * options.batch]
            rows = describe(
                enhancer, [without_overview(e.item) if options.hide_overview else e.item for e in part], checked=options.checked
            )
            file.writelines(orjson.dumps({"id": e.id} | row, option=orjson.OPT_APPEND_NEWLINE) for e, row in zip(part, rows, strict=True))
            file.flush()
            progress.advance(bar, len(part))
    command.echo(f"{len(entries)} items are described in {out}, {len(todo)} of them now")


def load(options: DescribeOptions) -> list[Entry]:
    """The items to describe, in their order."""
    entries = [entry for entry in read_entries(options.prepared) if options.only in (None, entry.split)]
    if options.title:
        entries = with_titles(entries, options.title)
    weights = query_weights(options.first, options.split) if options.first else {}
    return ranked_sample(entries, 4 if options.smoke else options.sample, options.seed, weights)


def load_enhancer(options: DescribeOptions) -> tuple[Enhancer, EnhancerSettings]:
    flags = {"adapter": options.adapter, "precision": options.precision, "max_new_tokens": options.tokens}
    settings = load_settings(flags={"enhancer": {name: value for name, value in flags.items() if value is not None}})
    # Serving's limits on a batch do not bind a job that has the machine to itself.
    alone = settings.enhancer.model_copy(update={"batch_size": options.batch, "retries": options.retries, "threads": 0})
    with command.console.status("loading the enhancer (the first time converts it)"):
        return Enhancer.load(alone, settings.models_dir, artifacts=settings.artifacts_uri, language=settings.language), alone


def describe(enhancer: Enhancer, items: Sequence[Item], *, checked: bool) -> Iterator[dict[str, Any]]:
    if not checked:
        return ({"description": text} for text in enhancer.write(items))
    return ({"description": d.text, "source": d.source, "violations": list(d.violations)} for d in enhancer.describe(items))


def resume(out: Path, made_by: dict[str, Any]) -> set[str]:
    """The ids that an earlier run of the same settings has described; a last line that a kill cut off is taken away."""
    note = out.with_suffix(".manifest.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.is_file():
        write_atomically(note, json.dumps(made_by, indent=1))
        return set()
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SourceError(f"{out} is there, but not {note.name} that says what wrote it: give another --out, or delete it") from None
    if before != json.loads(json.dumps(made_by)):
        changed = sorted(key for key in before["model"] if before["model"][key] != made_by["model"].get(key)) or ["inputs"]
        raise SourceError(f"{out} was written with another {', '.join(changed)}: give another --out, or delete it")
    written = out.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return {orjson.loads(line)["id"] for line in whole.splitlines()}


def without_overview(item: Item) -> Item:
    return item.model_copy(update={"overview": "", "extra": {}})


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=command.console)


app = command.job_app(DescribeOptions, main)

if __name__ == "__main__":
    app()
