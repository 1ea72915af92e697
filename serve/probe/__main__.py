"""The recall probe: asks a running server like a client does, and exports what it finds.

    python -m serve.probe                              # every probe.interval_s; Prometheus text on probe.metrics_port
    python -m serve.probe --once                       # one round, as a table
    python -m serve.probe --once --min-recall 0.7      # for a canary: exit code 1 where a set's Recall@10 is below

It asks the server that runs here, or `--url`; the key comes from MATINEE_PROBE__KEY. A set is judged by the mode that the server searches
with. Exit codes of `--once`: 0 fine, 1 below a limit, 2 unusable (no server, no figures, settings). Does not measure (`probe.round`).
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.client.server_file import announce, probe_file, read_server_file
from matinee.errors import SettingsError
from matinee.settings.addresses import url_of
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from serve.api.exposition import export_metrics
from serve.probe.client import ProbeClient
from serve.probe.metrics import ProbeExporter
from serve.probe.round import SIMILAR, Prober, Quality, RoundReport
from serve.telemetry import logs

FINE, BELOW, UNUSABLE = 0, 1, 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)
log = logging.getLogger("serve.probe.__main__")

Share = Annotated[float | None, typer.Option(min=0, max=1, help="with --once: the least Recall@10 of each set")]


@app.command(help=__doc__)
def main(
    once: Annotated[bool, typer.Option("--once", help="one round, printed as a table")] = False,
    min_recall: Share = None,
    max_unknown: Annotated[float, typer.Option(min=0, max=1, help="with --once: the largest part of a set's items not in the index")] = 0.1,
    url: Annotated[str | None, typer.Option(help="the server to ask (probe.url)")] = None,
    queries: Annotated[Path | None, typer.Option(help="a BEIR folder, or a folder of them (probe.queries)")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="port of the metrics; 0: a free one (probe.metrics_port)")
    ] = None,
) -> None:
    with explain_errors(exit_code=UNUSABLE):
        if min_recall is not None and not once:
            raise SettingsError("--min-recall judges one round: add --once")
        flags = {"url": url, "queries": queries, "metrics_port": metrics_port}
        settings = load_settings(flags={"probe": {name: value for name, value in flags.items() if value is not None}})
        if once:
            code = exit_code(*asyncio.run(_once(settings)), min_recall=min_recall, max_unknown=max_unknown)
            raise typer.Exit(code)
        _serve(settings)


def target(settings: Settings) -> str:
    """The server to ask: the configured one, the one that `server.json` names, or where one would be."""
    named = read_server_file(settings.server_file)
    serving = settings.serving
    return settings.probe.url or (named["url"] if named else url_of(serving.host, serving.port))


async def _round(prober: Prober, metrics: ProbeExporter, settings: Settings) -> RoundReport:
    async with ProbeClient(target(settings), settings.probe, metrics.observe, metrics.count) as client:
        report = await prober.round(client)
    metrics.show(report)
    return report


async def _once(settings: Settings) -> tuple[RoundReport, ProbeExporter]:
    metrics = ProbeExporter()
    return await _round(Prober(settings.probe), metrics, settings), metrics


def exit_code(report: RoundReport, metrics: ProbeExporter, *, min_recall: float | None, max_unknown: float) -> int:
    """Print a round and return its exit code."""
    if report.catalogue:
        Console().print(_table(report, metrics))
    faults = [
        f"set {quality.set}, {quality.mode}: Recall@10 {quality.recall:.3f} is below --min-recall {min_recall:g}"
        for quality in _with_limits(report)
        if min_recall is not None and quality.recall < min_recall
    ]
    faults += [
        f"set {name}: {unknown} of its {report.labelled[name]} items are not in the index, more than --max-unknown {max_unknown:g} allows"
        for name, unknown in report.unknown.items()
        if unknown > max_unknown * report.labelled[name]
    ]
    unusable = list(report.trouble)
    if min_recall is not None and not report.trouble and not report.queries:
        unusable.append(f"there is no query set for the catalogue {report.catalogue!r}, so no recall to judge: set probe.queries")
    if report.not_compared:
        console.print(f"[yellow]probe[/]: {escape(report.not_compared)}", highlight=False, soft_wrap=True)
    for fault in (*unusable, *faults):
        console.print(f"[red]probe[/]: {escape(fault)}", highlight=False, soft_wrap=True)
    return UNUSABLE if unusable else BELOW if faults else FINE


def _with_limits(report: RoundReport) -> Iterator[Quality]:
    return (quality for quality in report.qualities if quality.mode in (report.default_mode, SIMILAR))


def _table(report: RoundReport, metrics: ProbeExporter) -> Table:
    age = "" if report.created is None else f", {(time.time() - report.created.timestamp()) / 3600:.1f} h old"
    table = Table("", "", "queries", "Recall@10", "NDCG@10", title=f"{report.catalogue}, index {report.version}{age}")
    for quality in report.qualities:
        judged = "*" if quality in _with_limits(report) else ""
        table.add_row(escape(quality.set), f"{quality.mode}{judged}", str(quality.queries), f"{quality.recall:.3f}", f"{quality.ndcg:.3f}")
    for name, unknown in report.unknown.items():
        table.add_row(escape(name), "not in the index", f"{unknown} of {report.labelled[name]} items", "", "")
    for filtered, recall in report.ann_recall.items():
        table.add_row("approximate", "filtered" if filtered else "unfiltered", "", f"{recall:.3f}", "")
    if not report.queries:
        table.add_row("no query set", "", "0", "", "")
    for endpoint, count, mean_ms in metrics.means():
        table.add_row(endpoint, f"{mean_ms:.1f} ms, mean", f"{count} requests", "", "")
    table.caption = "* the mode that this server searches with"
    return table


def _serve(settings: Settings) -> None:
    """Rounds and their metrics until SIGINT or SIGTERM."""
    logs.configure(settings.serving, "probe")
    # Each round logs one line with its figures.
    log.setLevel(logging.INFO)
    prober, metrics = Prober(settings.probe), ProbeExporter()
    with _export_metrics(settings, metrics) as address, _announce(settings, address):
        every = " and on every other address of this machine" if settings.probe.metrics_host in ("0.0.0.0", "::") else ""  # noqa: S104
        console.print(
            f"probe: asks {escape(target(settings))}; metrics on [bold]{escape(address)}[/]{every}", highlight=False, soft_wrap=True
        )
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            asyncio.run(_watch(prober, metrics, settings))


@contextlib.contextmanager
def _export_metrics(settings: Settings, metrics: ProbeExporter) -> Iterator[str]:
    host, port = settings.probe.metrics_host, settings.probe.metrics_port
    with contextlib.ExitStack() as exits:
        try:
            address = exits.enter_context(export_metrics(metrics.registry, host, port, settings.serving))
        except OSError as error:
            raise SettingsError(
                f"probe.metrics_port {port} on {host}: {error.strerror or error}; stop what runs there, or take another"
            ) from None
        yield address


@contextlib.contextmanager
def _announce(settings: Settings, address: str) -> Iterator[None]:
    """In `probe.json`, for `make observe`. In a pod the home is read-only, and nothing reads the file there."""
    with contextlib.ExitStack() as exits:
        with contextlib.suppress(OSError):
            exits.enter_context(announce(probe_file(settings), target(settings), address))
        yield


async def _watch(prober: Prober, metrics: ProbeExporter, settings: Settings) -> None:
    this = asyncio.current_task()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, lambda: this and this.cancel())
    while True:
        start = time.monotonic()
        _log(await _round(prober, metrics, settings))
        await asyncio.sleep(max(0.0, settings.probe.interval_s - (time.monotonic() - start)))


def _log(report: RoundReport) -> None:
    for trouble in report.trouble:
        log.warning("%s", trouble)
    if report.not_compared:
        log.info("%s", report.not_compared)
    figures = [f"{quality.set} {quality.mode} recall@10 {quality.recall:.3f}" for quality in _with_limits(report)]
    figures += [f"ann recall@10 {recall:.3f}{' filtered' * filtered}" for filtered, recall in report.ann_recall.items()]
    if report.catalogue:
        log.info("%s", ", ".join(figures) or f"no query set for the catalogue {report.catalogue}: set probe.queries")


if __name__ == "__main__":
    sys.exit(app())
