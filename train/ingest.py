"""Ingest a catalogue: file -> items -> descriptions (where the recipe wants them) -> vectors -> a new index version -> switch.

    python -m train.ingest films.csv
    python -m train.ingest films.csv --kind film --map overview=Plot --map year=Released
    python -m train.ingest hub:Pablinho/movies-dataset --kind film --catalogue films
    python -m train.ingest --demo

The new version is built aside: until it is complete and verified, and if anything goes wrong, the old one goes on serving. Running it again
gives the same index. What was written through the API is kept (`--replace` discards it and says how much). Rows that can't be used go to
a rejects file with line number and reason. Raises nothing: errors are explained on stderr, with an exit code (`matinee.errors`).
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from matinee import demo
from matinee.client import Server, ServerWrites
from matinee.descriptions import Descriptions
from matinee.embedder import Embedder
from matinee.errors import MatineeError, SourceError
from matinee.index import open_store
from matinee.indexing import ApiWrites, Build, IndexWrites, Outcome, PointMaker
from matinee.items import Item
from matinee.settings import Settings, load_settings
from matinee.sources import ItemReader, ReadOptions, read_items, write_rejects

console = Console(stderr=True)


def main(
    source: Annotated[
        str | None, typer.Argument(help="a CSV, TSV, JSONL, JSON or Parquet file (also .gz), or hub:OWNER/NAME[@REVISION][:SPLIT]")
    ] = None,
    demo_films: Annotated[bool, typer.Option("--demo", help="ingest the bundled films instead of a file")] = False,
    catalogue: Annotated[str | None, typer.Option(help="the catalogue's name; also MATINEE_CATALOGUE")] = None,
    kind: Annotated[str | None, typer.Option(help="what the items are (film, book, ...), where rows don't say")] = None,
    map: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="which column holds a field, e.g. overview=Plot; repeatable")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="embed raw text, enhanced descriptions, or both")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="discard items written through the API instead of keeping them")] = False,
    delimiter: Annotated[str | None, typer.Option(help="column separator of a CSV file, where it can't be told")] = None,
    quote: Annotated[str | None, typer.Option(help="quote character, or none")] = None,
    encoding: Annotated[str | None, typer.Option(help="text encoding, e.g. utf-8, cp1252")] = None,
    date_order: Annotated[str | None, typer.Option(help="dmy, mdy or ymd, where dates can be read in two ways")] = None,
    decimal: Annotated[str | None, typer.Option(help="decimal sign: . or ,")] = None,
    pivot: Annotated[int | None, typer.Option(help="two-digit years up to this one are 20xx")] = None,
    rejects: Annotated[Path, typer.Option(help="folder for the file of rejected rows")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")] = False,
) -> None:
    """Turn a catalogue into a search index. See `python -m train.ingest --help`."""
    try:
        overrides = {"catalogue": catalogue} if catalogue else {}
        settings = load_settings(overrides | ({"index": {"recipe": recipe}} if recipe else {}))
        reader = _reader(source, demo_films, kind, map or [], ReadOptions(delimiter, quote, encoding, date_order, decimal, pivot))  # type: ignore[arg-type]
        start = time.perf_counter()
        outcome = asyncio.run(ingest(settings, reader, replace=replace, given=demo.descriptions() if demo_films else None))
        _report(reader, outcome, time.perf_counter() - start, rejects, as_json=json)
    except MatineeError as error:
        console.print(f"[red]error[/]: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        console.print("interrupted: the old index goes on serving; run the same command again to complete")
        raise typer.Exit(130) from None


async def ingest(settings: Settings, reader: ItemReader, *, replace: bool, given: dict[str, str] | None = None) -> Outcome:
    """Build and switch to a new version of the settings' catalogue."""
    with console.status("loading the embedder (the first time converts it)"):
        embedder = Embedder.load(settings.embedder, settings.models_dir, workload="corpus")
    describe = None
    if settings.index.recipe != "raw":
        describe = Descriptions(settings, given, console).write
    maker = PointMaker(embedder, settings.index.recipe, language=settings.embedder.language, describe=describe)
    async with AsyncExitStack() as stack:
        store = open_store(settings)
        stack.push_async_callback(store.close)
        api = await _api_writes(settings, store, stack)
        progress = stack.enter_context(_progress())
        bar = progress.add_task("ingest", total=reader.total)
        build = Build(
            store, maker, settings.catalogue, reader.report.source, api, replace, lambda *_: progress.update(bar, completed=reader.done)
        )
        outcome = await build.run(_not_empty(reader))
        progress.update(bar, completed=reader.total)
        await store.prune(settings.index.keep_versions)
    return outcome


async def _api_writes(settings: Settings, store: Any, stack: AsyncExitStack) -> ApiWrites | None:
    """Where the API's writes can be read: from the running server, else from the current version itself."""
    server = Server.running(settings)
    if server is not None:
        return ServerWrites(server) if server.get("/v1/info")["index"] is not None else None
    current = await store.current()
    if current is None:
        return None
    index = await store.open(current.version)
    stack.push_async_callback(index.close)
    return IndexWrites(index)


def _not_empty(reader: ItemReader) -> Iterator[Item]:
    yield from reader
    if not reader.report.items:
        first = f", the first because: {reader.report.rejects[0].reason}" if reader.report.rejects else ""
        raise SourceError(f"{reader.report.source}: no usable item in {reader.report.rows} rows{first}")


def _reader(source: str | None, demo_films: bool, kind: str | None, pairs: list[str], options: ReadOptions) -> ItemReader:
    if (source is None) != demo_films:
        raise SourceError("name one catalogue file (or hub:OWNER/NAME), or use --demo for the bundled films")
    mapping = {}
    for pair in pairs:
        field, sign, column = pair.partition("=")
        if not sign or not field or not column:
            raise SourceError(f"--map {pair!r}: write it as FIELD=COLUMN, for example overview=Plot")
        mapping[field] = column
    return read_items(str(demo.FILMS) if source is None else source, mapping=mapping, kind=kind, options=options)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _report(reader: ItemReader, outcome: Outcome, seconds: float, folder: Path, *, as_json: bool) -> None:
    report, manifest = reader.report, outcome.manifest
    rows: dict[str, Any] = {
        "rows read": report.rows,
        "items in the index": manifest.count,
        "from the file": outcome.counts["file"],
        "kept from the API": outcome.counts["api"],
        "deleted through the API": outcome.counts["tombstones"],
        "API items discarded": outcome.counts["discarded"],
        "duplicates dropped": report.duplicates,
        "rejected": len(report.rejects),
        "seconds": round(seconds, 1),
        "version": manifest.version,
        "recipe": manifest.recipe,
    }
    where = write_rejects(report, folder) if report.rejects else None
    if as_json:
        import orjson

        sys.stdout.buffer.write(
            orjson.dumps(rows | {"rejects_file": None if where is None else str(where), "warnings": report.warnings}) + b"\n"
        )
    table = Table(title=f"catalogue {manifest.catalogue}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/]: {warning}", highlight=False, soft_wrap=True)
    if where is not None:
        console.print(f"rejected rows, with line and reason: {where}", highlight=False, soft_wrap=True)
    console.print("next: [bold]matinee search 'something you like'[/], or [bold]python -m serve[/] for the HTTP API", highlight=False)


if __name__ == "__main__":
    typer.run(main)
