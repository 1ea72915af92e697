"""Describe a catalogue offline and in bulk: prepared items -> JSONL of (id, description), by the enhancer with or without an adapter.

    python -m train.describe work/prepared --out work/descriptions.jsonl
    python -m train.describe work/prepared --out work/tuned.jsonl --adapter work/enhancer/enhancer-lora  # or artifact:DIGEST
    python -m train.describe work/prepared --out work/some.jsonl --sample 2000 --seed 1 --first shared/data/eval
    python -m train.describe work/prepared --out work/hidden.jsonl --hide-overview                     # title, year, genres, people only
    python -m train.describe work/prepared --out work/rated.jsonl --only test --sample 40              # what `train.ratings` draws 20 of
    python -m train.describe work/prepared --out work/two.jsonl --title Inception --title Interstellar
    python -m train.describe work/prepared --out work/smoke.jsonl --smoke                              # four items

CTranslate2 int8 on a CPU, bf16 on a GPU, 48 items at a time. Run it again and it goes on where it was; with other settings or another model
the same file is refused. What serving would show is checked against the metadata; `--unchecked` keeps what the model itself said, and
`--hide-overview` implies it, because nothing is left to check a plot against. A sample is by seed alone: a larger one holds the smaller.
`--first` puts what evaluation sets look for to its head, so that a part of a catalogue can be judged.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import read_set, set_names
from matinee.evaluation.splits import SPLITS, Entry, read_corpus
from matinee.files import write_atomically
from matinee.items import Item
from matinee.models.bm25 import normalised
from matinee.models.enhancer import Enhancer
from matinee.settings.load import load_settings
from train.jobs import runs

Row = dict[str, Any]

BATCHES = 8
"""That many are sorted by length together, and written together."""


def main(
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")],
    out: Annotated[Path, typer.Option(help="the JSONL file")] = Path("work/descriptions.jsonl"),
    adapter: Annotated[str | None, typer.Option(help="a PEFT adapter's folder or artifact:DIGEST; by default the settings' own")] = None,
    precision: Annotated[str | None, typer.Option(help="as enhancer.precision")] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="items at a time")] = 48,
    retries: Annotated[int, typer.Option(min=0, max=5, help="times that an invention is asked for again")] = 1,
    tokens: Annotated[int | None, typer.Option(min=8, max=1024, help="most tokens a description; by default the settings' own")] = None,
    hide_overview: Annotated[bool, typer.Option("--hide-overview", help="tell the model title, year, genres and people only")] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="keep what the model said, whether the metadata bears it out or not")
    ] = False,
    title: Annotated[list[str] | None, typer.Option(help="describe the items of that title alone; repeatable")] = None,
    only: Annotated[str | None, typer.Option(help="describe the items of that split alone: train, dev or test")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="describe that many items only")] = None,
    seed: Annotated[int, typer.Option(help="of the sample")] = 0,
    first: Annotated[Path | None, typer.Option(help="a folder of evaluation sets: what they look for comes first")] = None,
    split: Annotated[str, typer.Option(help="of those sets")] = "dev",
    smoke: Annotated[bool, typer.Option("--smoke", help="four items")] = False,
) -> None:
    """Write a description of every item, or of a sample."""
    manifest = runs.read_manifest(prepared, "prepare")
    if only not in (None, *SPLITS):
        raise SettingsError(f"--only {only}: use {', '.join(SPLITS)}")
    entries = [entry for entry in read_corpus(prepared) if only in (None, entry.split)]
    entries = _titled(entries, title) if title else entries
    entries = chosen(entries, 4 if smoke else sample, seed, _wanted(first, split) if first else {})
    flags = {
        name: value for name, value in (("adapter", adapter), ("precision", precision), ("max_new_tokens", tokens)) if value is not None
    }
    settings = load_settings(flags={"enhancer": flags})
    # Serving's limits on a batch do not bind a job that has the machine to itself.
    alone = settings.enhancer.model_copy(update={"batch_size": batch, "retries": retries, "threads": 0})
    with runs.console.status("loading the enhancer (the first time converts it)"):
        enhancer = Enhancer.load(alone, settings.models_dir, artifacts=settings.artifacts_uri)
    unchecked = unchecked or hide_overview
    told = enhancer.info() | {
        **{name: getattr(alone, name) for name in ("max_new_tokens", "retries", "temperature", "repetition_penalty", "seed")},
        "hide_overview": hide_overview,
        "unchecked": unchecked,
    }
    known = resumed(out, {"job": "describe", "model": told, "inputs": manifest["outputs"]})
    todo = [entry for entry in entries if entry.id not in known]
    with out.open("ab") as file, _progress() as progress:
        bar = progress.add_task("describe", total=len(entries), completed=len(entries) - len(todo))
        for start in range(0, len(todo), BATCHES * batch):
            part = todo[start : start + BATCHES * batch]
            rows = described(enhancer, [_told(entry.item, hide_overview) for entry in part], unchecked=unchecked)
            file.writelines(orjson.dumps({"id": e.id} | row, option=orjson.OPT_APPEND_NEWLINE) for e, row in zip(part, rows, strict=True))
            file.flush()
            progress.advance(bar, len(part))
    runs.console.print(f"{len(entries)} items are described in {out}, {len(todo)} of them now", highlight=False, soft_wrap=True)


def described(enhancer: Enhancer, items: Sequence[Item], *, unchecked: bool) -> Iterator[Row]:
    if unchecked:
        return ({"description": text} for text in enhancer.write(items))
    return ({"description": d.text, "source": d.source, "violations": list(d.violations)} for d in enhancer.describe(items))


def chosen(entries: Sequence[Entry], count: int | None, seed: int, weights: dict[str, float]) -> list[Entry]:
    """The heaviest first, then in an order that only the seed and the ids decide."""
    ordered = sorted(entries, key=lambda entry: hashlib.sha256(f"{seed}\0{entry.id}".encode()).digest())
    ordered.sort(key=lambda entry: -weights.get(entry.id, 0.0))
    return ordered[:count]


def resumed(out: Path, made_by: dict[str, Any]) -> set[str]:
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


def _titled(entries: Sequence[Entry], titles: Sequence[str]) -> list[Entry]:
    asked = {normalised(title): title for title in titles}
    found = [entry for entry in entries if normalised(entry.item.title) in asked]
    unknown = asked.keys() - {normalised(entry.item.title) for entry in found}
    if unknown:
        raise SettingsError(f"--title {asked[min(unknown)]}: no item has that title")
    return found


def _wanted(folder: Path, split: str) -> dict[str, float]:
    """Item -> how much hangs on it: every query gives 1, shared by the items that answer it, and asks with its own item."""
    weights: dict[str, float] = defaultdict(float)
    for name in set_names(folder, split):
        asked = read_set(folder, name, split)
        for query, ids in asked.relevant.items():
            for id in ids:
                weights[id] += 1 / len(ids)
            if asked.of_items:
                weights[asked.items[query]] += 1
    if not weights:
        raise SourceError(f"{folder} has no evaluation set with {split} queries")
    return dict(weights)


def _told(item: Item, hide_overview: bool) -> Item:
    return item.model_copy(update={"overview": "", "extra": {}}) if hide_overview else item


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=runs.console)


app = runs.job_app(main)

if __name__ == "__main__":
    app()
