"""Ingest a catalogue: file -> items -> descriptions (where the recipe wants them) -> vectors -> a new index version -> switch.

    python -m train.ingest films.csv
    python -m train.ingest films.csv --kind film --map overview=Plot --map year=Released
    python -m train.ingest hub:Pablinho/movies-dataset --kind film --catalogue films
    python -m train.ingest --demo

    python -m train.ingest films.csv --recipe enhanced --json > result.json
    python -m train.ingest films.csv --via api --url http://matinee-serve-svc:8000

The new version is built aside: until it is complete and verified, and if anything goes wrong, the old one goes on serving. Running it again
gives the same index. What was written through the API is kept (`--replace` discards it and says how much). Rows that can't be used go to
a rejects file with line number and reason. Raises nothing: errors are explained on stderr, with an exit code (`matinee.errors`).

`--via api` loads no model: the server at `--url` embeds (and describes), so a job on a cluster needs no GPU. It waits for a server that is
starting or full, and a stopped run goes on where it was. The next embedder's index needs `--via local`: that one does not serve yet.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from matinee import demo
from matinee.catalogue.reader import ItemReader, ReadOptions, read_items, write_rejects
from matinee.cli.errors import explain_errors
from matinee.client.http import Client, ServerError
from matinee.client.models import Patience, RemoteEmbedder, RemoteEnhancer, connect
from matinee.errors import SettingsError, SourceError
from matinee.index.build import Build, Outcome, PointMaker
from matinee.index.factory import open_store
from matinee.items import Item
from matinee.models.descriptions import Descriptions, read_descriptions
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.jobs.api_writes import Live, LiveWrites

console = Console(stderr=True)

Via = Literal["local", "api"]

EXAMPLES = """Examples:\n
[dim]matinee ingest films.csv --kind film --map overview=Plot\n
matinee ingest hub:Pablinho/movies-dataset --kind film --catalogue films\n
matinee ingest --demo[/]"""


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
    descriptions: Annotated[
        Path | None, typer.Option(help="JSONL of id and description, as train.describe writes it: only other items are described here")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="discard items written through the API instead of keeping them")] = False,
    delimiter: Annotated[str | None, typer.Option(help="column separator of a CSV file, where it can't be told")] = None,
    quote: Annotated[str | None, typer.Option(help="quote character, or none")] = None,
    encoding: Annotated[str | None, typer.Option(help="text encoding, e.g. utf-8, cp1252")] = None,
    date_order: Annotated[str | None, typer.Option(help="dmy, mdy or ymd, where dates can be read in two ways")] = None,
    decimal: Annotated[str | None, typer.Option(help="decimal sign: . or ,")] = None,
    pivot: Annotated[int | None, typer.Option(help="two-digit years up to this one are 20xx")] = None,
    rejects: Annotated[Path, typer.Option(help="folder for the file of rejected rows")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")] = False,
    via: Annotated[Via, typer.Option(help="whose models: loaded here, or those of the server at --url")] = "local",
    url: Annotated[
        str | None, typer.Option(envvar="MATINEE_URL", help="the server that holds the index; by default the one that runs here")
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="MATINEE_KEY", help="API key of that server, where it wants one")] = None,
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for a server that is starting, full or out of reach")] = 600,
) -> None:
    """Turn a catalogue into a new index version, and switch to it when it is complete and verified.

    Items written through the API are kept. Rows that can't be used go to NAME.rejects.jsonl, with line and reason.
    """
    try:
        with explain_errors():
            flags = {"catalogue": catalogue} if catalogue else {}
            settings = load_settings(flags=flags | ({"index": {"recipe": recipe}} if recipe else {}))
            reader = _reader(source, demo_films, kind, map or [], ReadOptions(delimiter, quote, encoding, date_order, decimal, pivot))  # type: ignore[arg-type]
            given = _given(settings, descriptions, demo_films)
            start = time.perf_counter()
            server = Client(url, key=key) if url else None
            if via == "api":
                live = Live(server or Client.running(settings, key=key), key, Patience(patience))
                outcome = ingest_via_api(settings, reader, live, replace=replace, bundled=demo_films, given=given)
            else:
                live = Live(server, key, Patience(patience))
                outcome = asyncio.run(ingest(settings, reader, live, replace=replace, bundled=demo_films, given=given))
            _report(reader, outcome, time.perf_counter() - start, rejects, as_json=json)
    except KeyboardInterrupt:
        console.print("interrupted: the old index goes on serving; run the same command again to complete")
        raise typer.Exit(130) from None


async def ingest(
    settings: Settings,
    reader: ItemReader,
    live: Live,
    *,
    replace: bool,
    bundled: bool = False,
    given: Mapping[str, str] | None = None,
) -> Outcome:
    """Build and switch to a new version of the settings' catalogue; `given` are descriptions that are written already."""
    with console.status("loading the embedder (the first time converts it)"):
        # An ingest has the machine's cores to itself, unlike a replica.
        alone = settings.embedder.model_copy(update={"threads": 0})
        embedder = Embedder.load(alone, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")
    describe = None
    if settings.index.recipe != "raw":
        describe = Descriptions(settings, given, console).write
    maker = PointMaker(embedder, settings.index.recipe, language=settings.embedder.language, describe=describe, facts=settings.index.facts)
    return await _build(settings, reader, maker, live, replace=replace, bundled=bundled)


def ingest_via_api(
    settings: Settings,
    reader: ItemReader,
    live: Live,
    *,
    replace: bool,
    bundled: bool = False,
    given: Mapping[str, str] | None = None,
) -> Outcome:
    """The same with the models of the server."""
    server, patience = live.server, live.patience
    if server is None:
        raise ServerError("--via api needs a server, and none runs here: name it with --url", "invalid")
    with console.status(f"waiting for {server.url}"):
        info = connect(server, settings, patience)
    embedder = RemoteEmbedder(server, info, settings, patience)
    describe = None
    if settings.index.recipe != "raw":
        enhancer = RemoteEnhancer(server, info, patience)
        describe = Descriptions(settings, given, console, enhancer=enhancer).write
    maker = PointMaker(embedder, settings.index.recipe, language=settings.embedder.language, describe=describe, facts=settings.index.facts)
    with embedder.journal:
        return asyncio.run(_build(settings, reader, maker, live, replace=replace, bundled=bundled))


async def _build(settings: Settings, reader: ItemReader, maker: PointMaker, live: Live, *, replace: bool, bundled: bool) -> Outcome:
    store = open_store(settings)
    try:
        with _progress() as progress:
            bar = progress.add_task("ingest", total=reader.total)
            source = demo.source() if bundled else reader.report.source

            def advance(stage: str, count: int) -> None:
                progress.update(bar, completed=reader.done, description=stage)

            api = LiveWrites(settings, store, live)
            outcome = await Build(store, maker, settings.catalogue, source, api, replace, advance).run(_not_empty(reader))
            progress.update(bar, completed=reader.total)
        await store.prune(settings.index.keep_versions)
    finally:
        await store.close()
    return outcome


def _given(settings: Settings, path: Path | None, bundled: bool) -> dict[str, str] | None:
    """The descriptions of a file, or those that the bundled films bring along."""
    if path is None:
        return demo.descriptions() if bundled else None
    if settings.index.recipe == "raw":
        raise SettingsError(f"--descriptions {path}: the recipe raw embeds none; add --recipe both, or --recipe enhanced")
    return read_descriptions(path)


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
        table.add_row(name, escape(str(value)))
    console.print(table)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/]: {escape(warning)}", highlight=False, soft_wrap=True)
    if where is not None:
        console.print(f"rejected rows, with line and reason: {escape(str(where))}", highlight=False, soft_wrap=True)
    console.print("next: [bold]matinee search 'something you like'[/], or [bold]python -m serve[/] for the HTTP API", highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command(epilog=EXAMPLES)(main)

if __name__ == "__main__":
    app()
