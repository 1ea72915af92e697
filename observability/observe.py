"""Prometheus with our rules beside the server that runs here: `make observe`.

    python -m observability.observe               # http://127.0.0.1:9090
    python -m observability.observe --port 9091

It scrapes what `make demo METRICS=1` (or `python -m serve --metrics-port 0`) and the probe of this home folder export, also when they are
started later or anew, and keeps a week of it under the home folder. Ctrl-C stops it. Does not start servers, and brings no Grafana.
"""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from matinee.cli.errors import explain_errors
from matinee.client.server_file import probe_file, read_living
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from observability.files import PLAIN
from observability.prometheus import PrometheusError, running
from observability.queries import FOLDER

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)

LABELS = {"namespace": "local", "matinee_release": "local", "pod": "local"}
"""What the chart's PodMonitor would add."""
LOOK_S = 2.0


@app.command(help=__doc__)
def main(port: Annotated[int, typer.Option(min=1, max=65_535, help="port of Prometheus' page and API")] = 9090) -> None:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with explain_errors(PrometheusError):
        observe(load_settings(), port, stop)


def observe(settings: Settings, port: int, stop: threading.Event) -> None:
    """Run until `stop` is set."""
    folder = settings.home_dir / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    targets = folder / "targets.json"
    seen = _write(targets, settings)
    with running(config(targets), folder, port) as prometheus:
        _welcome(prometheus.url, seen)
        while not stop.wait(LOOK_S):
            addresses = _write(targets, settings)
            if addresses != seen:
                seen = addresses
                console.print(_scraping(addresses), highlight=False)
    console.print("stopped")


def config(targets: Path) -> dict[str, Any]:
    """Prometheus' configuration: our rules, and the targets of a file that may change."""
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
        "rule_files": [str(PLAIN)],
        "scrape_configs": [{"job_name": "matinee", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}]}],
    }


def _write(path: Path, settings: Settings) -> list[str]:
    """The targets there are now, written where Prometheus looks."""
    living = (read_living(file) for file in (settings.server_file, probe_file(settings)))
    addresses = [urlsplit(metrics).netloc for named in living if named is not None and (metrics := named.get("metrics"))]
    text = json.dumps([{"targets": addresses, "labels": LABELS}])
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return addresses


def _welcome(url: str, targets: list[str]) -> None:
    console.print(f"Prometheus: [bold]{url}[/] (alerts: {url}/alerts, targets: {url}/targets)", highlight=False, soft_wrap=True)
    console.print(_scraping(targets), highlight=False, soft_wrap=True)
    console.print(
        f"Grafana: add {url} as a Prometheus data source, then Dashboards > New > Import each file of {FOLDER}; Ctrl-C stops this",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _scraping(targets: list[str]) -> str:
    if not targets:
        return "no server here exports metrics now: start one with `make demo METRICS=1` (or `python -m serve --metrics-port 0`)"
    return f"scraping {', '.join(targets)}"


if __name__ == "__main__":
    app()
