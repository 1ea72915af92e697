"""Ingest a catalogue: file -> items -> descriptions (where the recipe wants them) -> vectors -> a new index version -> switch.

    python -m train.ingest films.csv
    python -m train.ingest films.csv --kind film --map overview=Plot --map year=Released
    python -m train.ingest hub:Pablinho/movies-dataset --kind film --catalogue films
    python -m train.ingest s3://bucket/films.parquet --kind film
    python -m train.ingest 's3://bucket/films/*.parquet' --kind film
    python -m train.ingest --demo
    python -m train.ingest films.csv --dry-run
    python -m train.ingest films.csv --attributes attributes.yaml

    python -m train.ingest films.csv --recipe enhanced --json > result.json
    python -m train.ingest films.csv --via api --url http://matinee-serve-svc:8000
    python -m train.ingest --database postgresql://shop@db/shop --query 'SELECT * FROM films' --kind film
    python -m train.ingest films.parquet --engine ray --workers 4

The new version is built aside: until it is complete and verified, and if anything goes wrong, the old one goes on serving. Running it again
gives the same index, and encodes only texts that are new or changed (`index.keep_vectors`). What was written through the API is kept
(`--replace` discards it and says how much). A value that can't be read is left out, counted and shown. Rows that can't be used go to a
rejects file with line number and reason; with `--strict`, so do rows with such values. What items can be filtered by is proposed from the
data, or declared in the file of `--attributes`.
`--dry-run` builds nothing: it says what each column became, and shows the first items as they would be stored.
Raises nothing: errors are explained on stderr, with an exit code (`matinee.errors`).

With `--engine ray` the same stages run as a stream of Ray Data, in processes of their own: on the cluster that `RAY_ADDRESS` names, or on
this machine. A worker that is killed loses nothing, and neither does the job: run it again.

`--via api` loads no model: the server at `--url` embeds (and describes), so a job on a cluster needs no GPU. It waits for a server that is
starting or full. The next embedder's index needs `--via local`: that one does not serve yet.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.markup import escape

from matinee import demo
from matinee.catalogue.declaration import as_yaml, read_declaration
from matinee.catalogue.proposal import AttributeStats, propose_attributes
from matinee.catalogue.reader import ItemReader, Report
from matinee.client.http import Client
from matinee.client.models import RetryPolicy
from matinee.errors import SettingsError, SourceError
from matinee.files import user_path
from matinee.filters.attributes import Attribute
from matinee.index.build import FileWriter
from matinee.index.catalogues import check_creatable, check_kept, find_record, register, require_usable
from matinee.index.points import PointMaker
from matinee.index.registry import CatalogueRecord
from matinee.items import Item
from matinee.models.descriptions import read_descriptions
from matinee.settings import local_ray
from matinee.settings.index import Recipe
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.ingesting.plan import BY_SIZE, EngineOptions, SpreadPlan, machine, make_plan, wants_ray
from train.jobs import command, indexing, ingest_report
from train.jobs.api_writes import ServerConnection
from train.jobs.command import console
from train.jobs.reader_options import DEFAULTS, ReaderOptions
from train.syncing.files import Files
from train.syncing.source import name_in_errors, read_as_exported
from train.syncing.sql import SqlQuery

Via = Literal["local", "api"]

EXAMPLES = """Examples:\n
[dim]matinee ingest films.csv --kind film --map overview=Plot\n
matinee ingest hub:Pablinho/movies-dataset --kind film --catalogue films\n
matinee ingest 's3://bucket/films/*.parquet' --kind film\n
matinee ingest --demo[/]"""


@dataclass(frozen=True)
class IngestSource:
    """A catalogue file, what people call it, and how it is read."""

    path: str
    name: str
    reading: ReaderOptions

    def reader(self) -> ItemReader:
        return self.reading.read(self.path)


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    source: Annotated[
        str | None,
        typer.Argument(
            help="a CSV, TSV, JSONL, JSON or Parquet file (also .gz), a folder or a pattern of them, each also in a store (s3://...), "
            "a web address, or hub:OWNER/NAME[@REVISION][:SPLIT]"
        ),
    ] = None
    database: Annotated[
        str | None,
        typer.Option(envvar="MATINEE_DATABASE", help="URL of a database, as SQLAlchemy takes it: postgresql://USER@HOST/NAME"),
    ] = None
    query: Annotated[str | None, typer.Option(help="SELECT whose rows are the items, instead of a file")] = None
    demo_films: Annotated[bool, typer.Option("--demo", help="ingest the bundled films instead of a file")] = False
    catalogue: Annotated[str | None, typer.Option(help="the catalogue's name; also MATINEE_CATALOGUE")] = None
    reading: ReaderOptions = DEFAULTS
    recipe: Annotated[Recipe | None, typer.Option(help="embed raw text, enhanced descriptions, or both")] = None
    descriptions: Annotated[
        Path | None, typer.Option(help="JSONL of id and description, as train.describe writes it: only other items are described here")
    ] = None
    replace: Annotated[bool, typer.Option("--replace", help="discard items written through the API instead of keeping them")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="build nothing: show what was understood, and the first three items")] = False
    attributes: Annotated[
        Path | None, typer.Option(help="YAML of what items can be filtered by; by default it is proposed from the data, see --dry-run")
    ] = None
    rejects: Annotated[Path, typer.Option(help="folder for the file of rejected rows")] = Path()
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")] = False
    via: Annotated[Via, typer.Option(help="whose models: local (loaded here), or api (those of the server at --url)")] = "local"
    spread: EngineOptions = BY_SIZE
    url: Annotated[
        str | None, typer.Option(envvar="MATINEE_URL", help="the server that holds the index; by default the one that runs here")
    ] = None
    key: Annotated[str | None, typer.Option(envvar="MATINEE_KEY", help="API key of that server, where it wants one")] = None
    release: Annotated[
        int | None, typer.Option(envvar="HELM_REVISION", help="the Helm release revision that this run belongs to; the chart sets it")
    ] = None
    newest_release: Annotated[
        int | None, typer.Option(envvar="HELM_NEWEST_REVISION", help="the revision of the last install or upgrade; the chart sets it")
    ] = None
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for a server that is starting, full or out of reach")] = 600

    @contextmanager
    def open(self) -> Iterator[IngestSource]:
        """The source as a file, until the end of the `with`."""
        if (self.source is not None) + self.demo_films + (self.query is not None) != 1:
            raise SourceError(
                "name one catalogue file (or a folder, s3://..., hub:OWNER/NAME), or a query with --query and --database, "
                "or use --demo for the bundled films"
            )
        if self.query is None:
            if self.source is None:
                yield IngestSource(str(demo.FILMS), demo.source(), self.reading)
                return
            files = Files(self.source)
            with ExitStack() as stack:
                with console.status(f"fetching {files.name}"):
                    path, name = stack.enter_context(files.as_one())
                with name_in_errors(path, name):
                    yield IngestSource(path, files.name, self.reading)
            return
        if not self.database:
            raise SettingsError("--query needs --database, or MATINEE_DATABASE")
        query = SqlQuery(self.database, self.query)
        with tempfile.TemporaryDirectory(prefix="matinee-ingest-") as folder:
            path = str(Path(folder) / "query.jsonl")
            with console.status("running the query"):
                rows = query.export(Path(path)).rows
            if not rows:
                raise SourceError(f"{query.name}: the query gives no rows")
            with name_in_errors(path, "the query's rows"):
                yield IngestSource(path, query.name, read_as_exported(self.reading))


def main(options: IngestOptions) -> None:
    """Turn a catalogue into a new index version, and switch to it when it is complete and verified.

    Items written through the API are kept. Rows that can't be used go to NAME.rejects.jsonl, with line and reason.
    """
    flags: dict[str, Any] = {"catalogue": options.catalogue} if options.catalogue else {}
    settings = load_settings(flags=flags | ({"index": {"recipe": options.recipe}} if options.recipe else {}))
    record = None if options.catalogue is None else asyncio.run(find_record(settings))
    if record is not None:
        settings = record.settings(settings)
        if options.recipe is not None:
            settings = settings.model_copy(update={"index": settings.index.model_copy(update={"recipe": options.recipe})})
        if options.reading.kind is None:
            options = replace(options, reading=replace(options.reading, kind=record.kind))
    if (newer := newer_release(settings, options)) is not None:
        command.echo(
            f"nothing was built: helm rollback started the Job of release revision {options.release} again, but revision {newer} built the "
            "current index, which stays. To go back to an older catalogue as well: matinee index rollback, or helm upgrade with its source"
        )
        return
    with options.open() as source:
        reader = source.reader()
        if options.dry_run:
            dry_run(reader, options, record)
        else:
            ingest(settings, source, reader, options, record)


def ingest(settings: Settings, source: IngestSource, reader: ItemReader, options: IngestOptions, record: CatalogueRecord | None) -> None:
    """Build the version, and say what it has. `record` is the catalogue's, where it was created before."""
    if record is not None:
        require_usable(record)
    elif options.catalogue is not None:
        asyncio.run(check_creatable(settings, load_settings().catalogue))
    attributes, stats = choose_attributes(reader, options, created=record)
    require_items(reader.report)
    descriptions = load_descriptions(settings, options)
    start = time.perf_counter()
    server = Client(options.url, key=options.key) if options.url else None
    if options.via == "api":
        server = server or Client.find_running(settings, key=options.key)
    connection = ServerConnection(server, options.key, RetryPolicy(options.patience))
    with engine(settings, source, reader, options, connection, descriptions) as (maker, write_file):
        outcome = asyncio.run(
            indexing.build(
                settings,
                reader,
                maker,
                connection,
                source.name,
                replace=options.replace,
                release=options.release,
                attributes=attributes,
                write_file=write_file,
            )
        )
    ingest_report.reject_failed(reader, outcome, settings.catalogue)
    if record is not None:
        asyncio.run(check_kept(settings))
    elif options.catalogue is not None:
        asyncio.run(register(settings, CatalogueRecord(name=settings.catalogue, kind=options.reading.kind, recipe=options.recipe)))
    seconds = time.perf_counter() - start
    ingest_report.show_outcome(reader.report, outcome, seconds, stats, maker.embedder, rejects=options.rejects, as_json=options.json)


@contextmanager
def engine(
    settings: Settings,
    source: IngestSource,
    reader: ItemReader,
    options: IngestOptions,
    connection: ServerConnection,
    known: indexing.Known,
) -> Iterator[tuple[PointMaker, FileWriter | None]]:
    """The models, and who writes the file's items with them: this process where that is None, or the workers of a Ray."""
    with ExitStack() as stack:
        if wants_ray(options.spread, reader.report.items, via_api=options.via == "api"):
            from train.ingesting.joining import join_ray

            here = machine() if local_ray.is_local() else None
            plan = None if here is None else make_plan(options.spread, here, settings)
            stack.enter_context(join_ray(1 if plan is None else max(1, plan.cpus)))
            # Ray reads its token when it is imported.
            from train.ingesting.pipeline import StreamWriter, cluster_models
            from train.ingesting.streams import room
            from train.ingesting.workers import ItemFile

            plan = make_plan(options.spread, room(), settings) if plan is None else plan
            if plan is not None:
                echo_plan(plan)
                cluster, maker, encoder = stack.enter_context(cluster_models(settings, plan, known))
                file = ItemFile(absolute(source.path), source.reading, reader.rules)
                yield maker, StreamWriter(cluster, encoder, file, reader.report.items)
                return
        models = indexing.server_models if options.via == "api" else indexing.local_models
        yield stack.enter_context(models(settings, connection, known)), None


def absolute(source: str) -> str:
    """The source as a process finds it that was started in another folder."""
    return source if source.startswith("hub:") else str(user_path(source).absolute())


def echo_plan(plan: SpreadPlan) -> None:
    describing = f", {plan.describe.size} to describe" if plan.describe else ""
    device = "GPU" if plan.embed.gpus else f"{plan.embed.threads} CPU threads"
    command.echo(f"engine ray: {plan.embed.size} processes to embed ({device} each){describing}, {plan.writers} to write")


def newer_release(settings: Settings, options: IngestOptions) -> int | None:
    """The newer release revision whose catalogue this run would replace: `helm rollback` runs the Job of the revision that it goes back to.

    A release that was installed anew counts from 1 again, over an index that was kept; there, nothing newer was installed.
    """
    release, newest = options.release, options.newest_release
    if release is None or (newest is not None and release >= newest):
        return None
    return asyncio.run(indexing.newer_release(settings, release))


def dry_run(reader: ItemReader, options: IngestOptions, record: CatalogueRecord | None) -> None:
    """Read the whole source, and say what would be ingested."""
    items: list[Item] = []
    attributes, stats = choose_attributes(reader, options, first=items, created=record)
    report = reader.report
    counts = {"rows": report.rows, "items": report.items, "duplicates": report.duplicates, "rejected": len(report.rejects)}
    if options.json:
        answer = counts | {
            "warnings": report.warnings,
            "understood": report.summary.as_json(),
            "first_items": [item.facts() for item in items],
            "attributes": [row.as_json() for row in stats],
        }
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        return
    ingest_report.show(report)
    ingest_report.show_warnings(report)
    for reject in report.rejects[: ingest_report.SHOWN]:
        command.echo(f"rejected: {reject.place} {reject.reason}")
    command.echo(f"{report.items} items in {report.rows} rows; nothing was built. The first as they would be stored:")
    ingest_report.show_items(items)
    ingest_report.show_attributes(stats)
    if options.attributes is None:
        command.echo("To change the attributes, save these lines to a file, edit them, and name it with --attributes:")
        console.print(escape(as_yaml(attributes)), highlight=False, soft_wrap=True)


def choose_attributes(
    reader: ItemReader, options: IngestOptions, *, first: list[Item] | None = None, created: CatalogueRecord | None = None
) -> tuple[dict[str, Attribute], list[AttributeStats]]:
    """What the items can be filtered by, and what they have of it. Reads the whole source; `first` gets its first items.

    Without a file of attributes, those count that the catalogue was `created` with.
    """
    declared = None if created is None else created.attributes
    if options.attributes is not None:
        declared = read_declaration(options.attributes, reader.report.columns)

    def items() -> Iterator[Item]:
        for item in reader:
            if first is not None and len(first) < ingest_report.SHOWN:
                first.append(item)
            yield item

    with console.status("reading the catalogue"):
        return propose_attributes(items(), declared)


def require_items(report: Report) -> None:
    """Raises `SourceError` where no row became an item: before a model is loaded, or a version begun."""
    if not report.items:
        first = f", the first because: {report.rejects[0].reason}" if report.rejects else ""
        raise SourceError(f"{report.source}: no usable item in {report.rows} rows{first}")


def load_descriptions(settings: Settings, options: IngestOptions) -> dict[str, str] | None:
    """The descriptions of a file, or those that the bundled films bring along."""
    path = options.descriptions
    if path is None:
        return demo.descriptions() if options.demo_films else None
    if settings.index.recipe == "raw":
        raise SettingsError(f"--descriptions {path}: the recipe raw embeds none; add --recipe both, or --recipe enhanced")
    return read_descriptions(path)


app = command.job_app(
    IngestOptions, main, epilog=EXAMPLES, interrupted="the old index goes on serving; run the same command again to complete"
)

if __name__ == "__main__":
    app()
