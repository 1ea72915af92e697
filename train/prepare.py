"""Prepare a catalogue for training: clean items, a 90/10 split by franchise, statistics, a manifest with hashes.

    python -m train.prepare films.csv --out work/prepared
    python -m train.prepare films.csv --out work/prepared --kind film --map overview=Plot --seed 1
    python -m train.prepare shared/data/eval --out work/prepared     # a BEIR folder: its own split column wins
    python -m train.prepare --smoke --out work/prepared              # the bundled films, a few seconds

Writes `items.jsonl` (`matinee.evaluation.splits`), `statistics.json` and `manifest.json`. The same input, seed and settings give
the same bytes, in
whatever order the rows stand; what is finished is not made again. A sequel never lies on the other side of its original: items are split
by franchise, unless a column `split` (train, dev, test) says otherwise.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee import demo
from matinee.catalogue.reader import ReadOptions, Report, read_items, write_rejects
from matinee.errors import SourceError
from matinee.evaluation.splits import SPLITS, Entry, assign_splits, franchise, read_corpus, write_corpus
from matinee.files import sha256, write_atomically
from matinee.items import Item
from train.jobs import runs


def main(
    source: Annotated[str | None, typer.Argument(help="a catalogue file, hub:OWNER/NAME, or a BEIR folder with corpus.jsonl")] = None,
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/prepared"),
    kind: Annotated[str | None, typer.Option(help="what the items are, where rows don't say")] = None,
    map: Annotated[list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="which column holds a field; repeatable")] = None,
    test: Annotated[float, typer.Option(min=0, max=0.5, help="part of the items that is held out")] = 0.1,
    dev: Annotated[float, typer.Option(min=0, max=0.5, help="part that chooses between models, out of the rest")] = 0.05,
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="the bundled films")] = False,
) -> None:
    """Turn a catalogue into clean items with a split."""
    if (source is None) != smoke:
        raise SourceError("name one catalogue, or use --smoke for the bundled films")
    origin = str(demo.FILMS) if source is None else source
    settings = {"kind": kind, "map": sorted(map or []), "test": test, "dev": dev, "seed": seed}
    inputs = _inputs(origin)
    if runs.finished(out, "prepare", settings, inputs):
        runs.console.print(f"{out} is complete already: nothing to do", highlight=False, soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / runs.MANIFEST).unlink(missing_ok=True)
    if (Path(origin) / "corpus.jsonl").is_file():
        entries, report = read_corpus(Path(origin)), None
    else:
        entries, report = _from_catalogue(origin, kind, map or [], seed=seed, test=test, dev=dev)
        write_rejects(report, out)
    if not entries:
        raise SourceError(f"{origin}: no usable item")
    write_corpus(sorted(entries, key=lambda entry: entry.id), out / "items.jsonl")
    statistics = _statistics(entries, report)
    write_atomically(out / "statistics.json", json.dumps(statistics, indent=1, ensure_ascii=False))
    runs.write_manifest(out, "prepare", settings, inputs, statistics=statistics)
    runs.console.print_json(json.dumps(statistics, ensure_ascii=False))


def _inputs(origin: str) -> dict[str, str]:
    if origin.startswith("hub:"):
        return {origin: "fetched"}
    path = Path(origin) / "corpus.jsonl" if Path(origin).is_dir() else Path(origin)
    if not path.is_file():
        raise SourceError(f"{origin} is neither a catalogue file nor a folder with corpus.jsonl")
    return {path.name: sha256(path)}


def _from_catalogue(origin: str, kind: str | None, pairs: list[str], *, seed: int, test: float, dev: float) -> tuple[list[Entry], Report]:
    mapping = {}
    for pair in pairs:
        field, sign, column = pair.partition("=")
        if not (field and sign and column):
            raise SourceError(f"--map {pair!r}: write it as FIELD=COLUMN, for example overview=Plot")
        mapping[field] = column
    reader = read_items(origin, mapping=mapping, kind=kind, options=ReadOptions())
    items = list(reader)
    entries = [_entry(item) for item in items]
    given = [entry.split in SPLITS for entry in entries]
    if any(given) and not all(given):
        row = given.index(False)
        raise SourceError(f"{origin}: item {entries[row].id} has the split {entries[row].split!r}, others have one of {', '.join(SPLITS)}")
    # By id, so that the order of the rows decides nothing.
    entries.sort(key=lambda entry: entry.id)
    return (entries if any(given) else assign_splits(entries, seed=seed, test=test, dev=dev)), reader.report


def _entry(item: Item) -> Entry:
    """A column `split`, or `franchise`, comes as an extra fact; neither belongs into a text."""
    given = {name: str(item.extra[name]).strip().casefold() for name in ("split", "franchise") if item.extra.get(name)}
    rest = {name: value for name, value in item.extra.items() if name not in given}
    split: Any = given.get("split", "unknown")
    return Entry(item.id or item.uid(""), item.model_copy(update={"extra": rest}), split, given.get("franchise") or franchise(item.title))


def _statistics(entries: list[Entry], report: Report | None) -> dict[str, Any]:
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


app = runs.job_app(main)

if __name__ == "__main__":
    app()
