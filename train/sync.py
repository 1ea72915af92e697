"""Keep a running server's catalogue as a source has it: compare -> write what is new or different -> delete what is gone.

    python -m train.sync films.csv --kind film --dry-run
    python -m train.sync 's3://bucket/catalogue/*.parquet' --url http://matinee-serve-svc:8000
    python -m train.sync --database postgresql://shop@db/shop --query 'SELECT id, title, overview, genres, year FROM films'
    python -m train.sync --query 'SELECT * FROM films' --cursor updated_at --deleted deleted_at --every 60 --metrics-port 9106

A source is a file, a folder, a pattern or a bucket, whose files are one catalogue, or a SQL query. No model is loaded: the server embeds
what is written. The source is right: an item that it does not have is deleted, also one that was written through the API (`--no-delete`
keeps these). A source that is cut off, that has no items or too many broken rows, or that lacks more than `--max-deleted` of the catalogue
changes nothing.

With `--cursor`, further rounds read only rows whose COLUMN is at least as high as the highest one before. A whole comparison comes first
and then once a day (`--compare-every`): it finds rows that are gone, and those that were committed late.
Raises nothing: errors are explained on stderr, with an exit code (`matinee.errors`). With `--every`, a round that fails is tried again.
"""

import logging
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from matinee.client.http import Client
from matinee.client.models import RetryPolicy
from matinee.errors import MatineeError, SettingsError
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.jobs import command
from train.jobs.command import console
from train.jobs.reader_options import DEFAULTS, ReaderOptions
from train.syncing.metrics import SyncMetrics, serve_metrics
from train.syncing.round import Limits, Round, SyncReport
from train.syncing.source import FileSource
from train.syncing.sql import SqlQuery
from train.syncing.state import StateFile

log = logging.getLogger("train.sync")

EXAMPLES = """Examples:\n
[dim]matinee sync films.csv --kind film --dry-run\n
matinee sync 's3://bucket/catalogue/*.parquet' --every 600\n
matinee sync --database sqlite:///shop.db --query 'SELECT * FROM films' --cursor updated_at --every 60[/]"""


@dataclass(frozen=True, kw_only=True)
class SyncOptions:
    source: Annotated[
        str | None, typer.Argument(help="a file, a folder, a pattern such as 'parts/*.csv', a bucket (s3://...), or hub:OWNER/NAME")
    ] = None
    database: Annotated[
        str | None,
        typer.Option(envvar="MATINEE_DATABASE", help="URL of a database, as SQLAlchemy takes it: postgresql://USER@HOST/NAME"),
    ] = None
    query: Annotated[str | None, typer.Option(help="SELECT whose rows are the items")] = None
    cursor: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="column of the query that rises with each change: further rounds read from there on"),
    ] = None
    deleted: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="column of the query that marks deleted rows: true, 1, or the time of deletion")
    ] = None
    compare_every: Annotated[float, typer.Option(min=0, help="with --cursor: seconds until everything is compared again")] = 86_400
    reading: ReaderOptions = DEFAULTS
    delete: Annotated[bool, typer.Option("--delete/--no-delete", help="delete items that the source does not have, or keep them")] = True
    max_deleted: Annotated[
        float, typer.Option(min=0, max=1, help="share of the catalogue that may be missing from the source; above it, nothing is changed")
    ] = 0.1
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="share of the rows that may be unusable; above it, nothing is changed")
    ] = 0.01
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing: say what would be written and deleted")] = False
    every: Annotated[float | None, typer.Option(min=1, help="repeat, with so many seconds from start to start; by default once")] = None
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="with --every: export Prometheus metrics; 0: a free port")] = (
        None
    )
    metrics_host: Annotated[str, typer.Option(help="address that the metrics bind")] = "127.0.0.1"
    json: Annotated[bool, typer.Option("--json", help="print the result of each round as JSON on stdout, a line each")] = False
    catalogue: Annotated[
        str | None, typer.Option(help="the server's catalogue; by default MATINEE_CATALOGUE, or the default one at --url")
    ] = None
    url: Annotated[str | None, typer.Option(envvar="MATINEE_URL", help="the server; by default the one that runs here")] = None
    key: Annotated[
        str | None, typer.Option(envvar="MATINEE_KEY", help="API key with the scopes read and write, where the server wants one")
    ] = None
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for a server that is starting, full or out of reach")] = 600

    def origin(self) -> FileSource | SqlQuery:
        if (self.source is None) == (self.query is None):
            raise SettingsError("name one source: a file, folder, pattern or bucket, or a query with --query and --database")
        if self.source is not None:
            if self.cursor or self.deleted:
                raise SettingsError("--cursor and --deleted name columns of a query: give one with --query and --database")
            return FileSource(self.source, self.reading)
        if not self.database:
            raise SettingsError("--query needs --database, or MATINEE_DATABASE")
        return SqlQuery(self.database, str(self.query), cursor=self.cursor, deleted=self.deleted)

    @property
    def limits(self) -> Limits:
        return Limits(
            delete=self.delete,
            max_deleted=self.max_deleted,
            max_rejected=self.max_rejected,
            compare_every_s=self.compare_every,
            dry_run=self.dry_run,
        )


def main(options: SyncOptions) -> None:
    """Keep a running server's catalogue as a source has it: files, a bucket or a SQL query, once or every N seconds.

    New and changed items are written, items that the source does not have are deleted. Try it with --dry-run first.
    """
    if options.metrics_port is not None and options.every is None:
        raise SettingsError("--metrics-port is for a sync that repeats: add --every")
    source = options.origin()
    settings = load_settings(flags={"catalogue": options.catalogue} if options.catalogue else None)
    if options.every is None:
        report = sync(options, settings, source)
        print_report(report, options)
        return
    repeat(options, settings, source, options.every)


def sync(options: SyncOptions, settings: Settings, source: FileSource | SqlQuery) -> SyncReport:
    """One round. Raises `MatineeError`."""
    server = Client.for_writing(settings, options.url, options.key, options.catalogue)
    parts = {"source": source.name, "query": options.query, "cursor": options.cursor, "deleted": options.deleted, "url": server.url}
    if options.catalogue is not None:
        parts["catalogue"] = options.catalogue
    state = StateFile(settings.home_dir, parts | options.reading.settings())
    with console.status("starting") as status, state.lock():
        return Round(server, RetryPolicy(options.patience), options.limits, status.update).run(source, options.reading, state)


def repeat(options: SyncOptions, settings: Settings, source: FileSource | SqlQuery, every_s: float) -> None:
    """Rounds until SIGINT or SIGTERM. One that fails is logged, counted and tried again."""
    logging.basicConfig(format="%(asctime)s %(levelname)s sync %(message)s")
    log.setLevel(logging.INFO)
    # A container's first process ignores the signal unless it is told what to do. Any round may be cut off.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    metrics = SyncMetrics()
    with ExitStack() as exits:
        if options.metrics_port is not None:
            address = exits.enter_context(serve_metrics(metrics, options.metrics_host, options.metrics_port))
            command.echo("metrics on ", (address, "bold"))
        while True:
            start = time.monotonic()
            try:
                report = sync(options, settings, source)
            except (MatineeError, OSError) as error:
                metrics.record_failure(error)
                log.warning("failed: %s", error)
            else:
                metrics.record_success(report)
                log.info("%s", summary(report, options))
                for problem in report.problems:
                    log.warning("%s", problem)
                if options.json:
                    print_json(report)
            time.sleep(max(0.0, every_s - (time.monotonic() - start)))


def summary(report: SyncReport, options: SyncOptions) -> str:
    verb = "would be " if options.dry_run else ""
    how = "compared with the whole catalogue" if report.compared else "since the last round"
    return (
        f"{report.rows} rows, {how}: {report.written} items {verb}written, {report.deleted} {verb}deleted, {report.unchanged} unchanged, "
        f"{report.rejected} rejected; {sum(report.seconds.values()):.1f} s"
    )


def print_report(report: SyncReport, options: SyncOptions) -> None:
    if options.json:
        print_json(report)
    table = Table(title=escape(report.source), show_header=False)
    would = "would be " if options.dry_run else ""
    rows: dict[str, Any] = {
        "rows read": report.rows,
        "compared with": "the whole catalogue" if report.compared else "nothing: rows since the last round",
        f"{would}written": report.written,
        f"{would}deleted": report.deleted,
        "unchanged": report.unchanged,
        "rejected": report.rejected,
    }
    if report.skipped:
        rows["skipped: others wrote these items meanwhile"] = report.skipped
    rows["seconds"] = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items())
    for name, value in rows.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    for problem in report.problems:
        command.echo(("warning", "yellow"), f": {problem}")
    if options.dry_run and report.deleted_ids:
        command.echo(f"the first that would be deleted: {', '.join(report.deleted_ids)}")


def print_json(report: SyncReport) -> None:
    sys.stdout.buffer.write(orjson.dumps(asdict(report), option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


app = command.job_app(SyncOptions, main, epilog=EXAMPLES, interrupted="run the same command again: it does what is left")

if __name__ == "__main__":
    app()
