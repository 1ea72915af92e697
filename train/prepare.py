"""Prepare a catalogue for training: clean items, a 90/10 split by franchise, statistics, a manifest with hashes.

    python -m train.prepare films.csv --out work/prepared
    python -m train.prepare films.csv --out work/prepared --kind film --map overview=Plot --seed 1
    python -m train.prepare EVAL --kind film --out work/prepared     # a BEIR folder: its own split column wins
    python -m train.prepare --smoke --out work/prepared              # the bundled films, a few seconds

Writes `items.jsonl` (`matinee.evaluation.splits`), `statistics.json` and `manifest.json`. The same input, seed and settings give the same
bytes, in whatever order the rows stand. A finished folder is not made again. A sequel never lies on the other side of its original: items
are split by franchise, unless a column `split` (train, dev, test) says otherwise.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee import demo
from matinee.catalogue.reader import Report, write_rejects
from matinee.errors import SourceError
from matinee.evaluation.splits import SPLITS, Entry, assign_splits, franchise, read_entries, write_entries
from matinee.files import sha256, write_atomically
from matinee.items import NO_KIND, Item
from matinee.languages import ENGLISH
from matinee.settings.load import load_settings
from train.jobs import command, manifests
from train.jobs.reader_options import DEFAULTS, ReaderOptions


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    source: Annotated[str | None, typer.Argument(help="a catalogue file, hub:OWNER/NAME, or a BEIR folder with corpus.jsonl")] = None
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/prepared")
    reading: ReaderOptions = DEFAULTS
    test: Annotated[float, typer.Option(min=0, max=0.5, help="share of the items that is held out for the test")] = 0.1
    dev: Annotated[float, typer.Option(min=0, max=0.5, help="share of the other items that chooses between models")] = 0.05
    seed: Annotated[int, typer.Option(help="random seed of the split")] = 0
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: the bundled films")] = False

    def __post_init__(self) -> None:
        if (self.source is None) != self.smoke:
            raise SourceError("name one catalogue, or use --smoke for the bundled films")


def main(options: PrepareOptions) -> None:
    """Turn a catalogue into clean items with a split."""
    out, source = options.out, str(demo.FILMS) if options.source is None else options.source
    settings = {name: getattr(options, name) for name in ("test", "dev", "seed")} | options.reading.settings()
    language = load_settings().language
    settings |= {} if language == ENGLISH else {"language": language}
    inputs = input_hashes(source)
    if manifests.is_complete(out, "prepare", settings, inputs):
        command.echo(f"{out} is complete already: nothing to do")
        return
    manifests.reopen(out)
    if (Path(source) / "corpus.jsonl").is_file():
        entries, report = read_entries(Path(source), kind=options.reading.kind or NO_KIND), None
    else:
        entries, report = load(source, options, language)
        write_rejects(report, out)
    if not entries:
        raise SourceError(f"{source}: no usable item")
    write_entries(sorted(entries, key=lambda entry: entry.id), out / "items.jsonl")
    summary = statistics(entries, report)
    write_atomically(out / "statistics.json", json.dumps(summary, indent=1, ensure_ascii=False))
    manifests.write(out, "prepare", settings, inputs, statistics=summary)
    command.console.print_json(json.dumps(summary, ensure_ascii=False))


def input_hashes(source: str) -> dict[str, str]:
    if source.startswith("hub:"):
        return {source: "fetched"}
    path = Path(source) / "corpus.jsonl" if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise SourceError(f"{source} is neither a catalogue file nor a folder with corpus.jsonl: name one of these, or hub:OWNER/NAME")
    return {path.name: sha256(path)}


def load(source: str, options: PrepareOptions, language: str) -> tuple[list[Entry], Report]:
    """The items of a catalogue with their split."""
    reader = options.reading.read(source)
    entries = [to_entry(item, language) for item in reader]
    has_split = [entry.split in SPLITS for entry in entries]
    if any(has_split) and not all(has_split):
        row = has_split.index(False)
        raise SourceError(f"{source}: item {entries[row].id} has the split {entries[row].split!r}, others have one of {', '.join(SPLITS)}")
    # By id, so that the order of the rows decides nothing.
    entries.sort(key=lambda entry: entry.id)
    if not any(has_split):
        entries = assign_splits(entries, seed=options.seed, test=options.test, dev=options.dev)
    return entries, reader.report


def to_entry(item: Item, language: str = ENGLISH) -> Entry:
    """A column `split`, or `franchise`, comes as an extra fact; neither belongs into a text."""
    columns = {name: str(item.extra[name]).strip().casefold() for name in ("split", "franchise") if item.extra.get(name)}
    rest = {name: value for name, value in item.extra.items() if name not in columns}
    split: Any = columns.get("split", "unknown")
    series = columns.get("franchise") or franchise(item.title, language)
    return Entry(item.id or item.uid(""), item.model_copy(update={"extra": rest}), split, series)


def statistics(entries: list[Entry], report: Report | None) -> dict[str, Any]:
    groups: dict[str, set[str]] = {}
    for entry in entries:
        groups.setdefault(entry.franchise, set()).add(entry.split)
    lengths = sorted(len(entry.item.overview.split()) for entry in entries)
    return {
        "items": len(entries),
        "splits": dict(Counter(entry.split for entry in entries)),
        "franchises": len(groups),
        "franchises_that_cross": sum(len(splits) > 1 for splits in groups.values()),
        "without_overview": sum(not entry.item.overview for entry in entries),
        "overview_words": {"median": lengths[len(lengths) // 2], "p95": lengths[int(len(lengths) * 0.95)], "longest": lengths[-1]},
        "genres": dict(Counter(genre for entry in entries for genre in entry.item.genres).most_common(30)),
        "languages": dict(Counter(entry.item.language or "unknown" for entry in entries).most_common(10)),
    } | ({} if report is None else {"duplicates": report.duplicates, "rejected": len(report.rejects), "warnings": report.warnings})


app = command.job_app(PrepareOptions, main)

if __name__ == "__main__":
    app()
