"""Start the whole graph on this machine: `python -m serve`.

    python -m serve                       # http://127.0.0.1:8000, settings from MATINEE_* and MATINEE_CONFIG
    python -m serve --port 0              # any free port
    python -m serve --metrics-port 9100   # and Prometheus text on http://127.0.0.1:9100/metrics (no token; off without the flag)
    python -m serve key reader            # print a new API key and the settings entry that admits it
    python -m serve check                 # check the settings, fetch and verify the models, and stop
    python -m serve openapi               # print the OpenAPI document, as docs/openapi.json holds it

Ctrl-C stops everything. On a cluster KubeRay starts the same graph from a Serve config instead (`serve.app:build`).
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import httpx
import typer
from rich.console import Console

from matinee.cli.errors import explain_errors
from matinee.client.http import announced
from matinee.errors import MatineeError, SettingsError
from matinee.events import check_uri
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_store
from matinee.models import resolve, saved_model
from matinee.settings import local_ray
from matinee.settings.load import load_settings
from matinee.settings.serving import SCOPES
from matinee.settings.tree import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)

READY_S = 300


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="0 takes a free one")] = None,
    host: Annotated[str | None, typer.Option()] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="serve Prometheus text at 127.0.0.1:PORT/metrics; 0 takes a free port")
    ] = None,
) -> None:
    """Start the graph and wait until it is stopped."""
    if context.invoked_subcommand is not None:
        return
    with explain_errors():
        flags = {name: value for name, value in {"port": port, "host": host}.items() if value is not None}
        run(load_settings(flags={"serving": flags}), metrics_port=metrics_port)


@app.command()
@explain_errors()
def key(name: str, scope: Annotated[list[str], typer.Option(help=f"repeatable: {', '.join(SCOPES)}")] = ["read"]) -> None:  # noqa: B006
    """Print a new API key, once, and the entry for `serving.keys` that admits it."""
    from serve.api.auth import new_key

    unknown = set(scope) - set(SCOPES)
    if unknown:
        raise SettingsError(f"unknown scope {', '.join(sorted(unknown))}: use {', '.join(SCOPES)}")
    secret, entry = new_key(name, tuple(s for s in SCOPES if s in scope))
    sys.stdout.write(f"key (shown once): {secret}\nserving.keys entry: {entry.model_dump_json()}\n")


@app.command()
def check() -> None:
    """Check the settings, and fetch and verify the models they name: what a pod does before it serves. Prints what it did."""
    with explain_errors():
        settings = load_settings()
        _check(settings, index=False)
    console.print(f"settings and models are complete: catalogue {settings.catalogue}", highlight=False)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from serve.api.openapi import document

    sys.stdout.write(document())


def run(settings: Settings, *, metrics_port: int | None = None) -> None:
    """Start Ray and the graph, announce the server in `server.json`, and wait for a signal."""
    port = _port(settings)
    url = f"http://{settings.serving.host if settings.serving.host != '0.0.0.0' else '127.0.0.1'}:{port}"  # noqa: S104
    _environment(settings, metrics=metrics_port is not None)
    _check(settings)
    stop = threading.Event()
    with _ray(settings, port, metrics_port, stop) as metrics:
        if not _wait_ready(url, stop):
            raise MatineeError(f"the graph was not ready within {READY_S} s: the lines above, and the logs under /tmp/ray, say why")
        with announced(settings.server_file, url, metrics):
            console.print(f"Matinee serves on [bold]{url}[/] (page: {url}/, API: {url}/docs); Ctrl-C stops it", highlight=False)
            stop.wait()
            console.print("stopping ...")


def _port(settings: Settings) -> int:
    """The configured port, or a free one for 0. Raises where it is taken."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.serving.host, settings.serving.port))
        except OSError as error:
            raise SettingsError(
                f"serving.port {settings.serving.port} on {settings.serving.host}: {error.strerror}; stop what runs there, or use --port 0"
            ) from None
        return int(probe.getsockname()[1])


def _check(settings: Settings, *, index: bool = True) -> None:
    """Find here, in seconds and in plain words, what would otherwise fail in a replica: models, and an index that is locked or broken."""

    def say(step: str) -> None:
        console.print(f"  {step}", highlight=False)

    resolve.resolve(
        settings.embedder.model, settings.embedder.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri, progress=say
    )
    if settings.enhancer.enabled:
        base = resolve.resolve(
            settings.enhancer.model,
            settings.enhancer.revision,
            models_dir=settings.models_dir,
            artifacts=settings.artifacts_uri,
            progress=say,
        )
        if settings.enhancer.adapter:
            adapter = resolve.resolve(
                settings.enhancer.adapter, models_dir=settings.models_dir, artifacts=settings.artifacts_uri, progress=say
            )
            saved_model.check_adapter(adapter, base, settings.enhancer.model)
    if settings.events.uri is not None:
        check_uri(settings.events.uri)
    if index and settings.index.engine == "edge":
        asyncio.run(_try_index(settings))


async def _try_index(settings: Settings) -> None:
    live = ActiveIndex(open_store(settings))
    try:
        await live.refresh()
        if live.manifest is None:
            console.print(f"catalogue {settings.catalogue!r} has no index yet: `matinee ingest FILE` builds one, also while this runs")
    finally:
        await live.close()


def _environment(settings: Settings, *, metrics: bool) -> None:
    """What Ray reads when it is imported: set here, before that. Raises `SettingsError`."""
    if settings.serving.haproxy and local_ray.is_local():
        raise SettingsError(
            "serving.haproxy: on one machine HAProxy's statistics and the replicas' ports would answer on every interface without a token; "
            "leave it off here (the chart turns it on in a cluster, behind its NetworkPolicy)"
        )
    local_ray.secure(metrics=metrics)
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    # Serve restarts a proxy that was not ready in 5 s: on a slow machine it never was.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # uvicorn's own rule would let every local client name the address that limits count by: serving.trusted_proxies decides.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    if settings.serving.fast:
        os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "1")
    if settings.serving.haproxy:
        os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")


@contextlib.contextmanager
def _ray(settings: Settings, port: int, metrics_port: int | None, stop: threading.Event) -> Iterator[str | None]:
    """Ray and the graph; yields the URL of the metrics, None where none are exported."""
    import ray
    from ray import serve as ray_serve

    from serve.app import graph

    local_ray.start(ray.init, include_dashboard=False, logging_level="warning", num_cpus=_cpus(), _metrics_export_port=metrics_port or None)
    # After Ray's start, which puts its own in their place: those would leave the replicas behind.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    try:
        ray_serve.start(
            http_options={"host": settings.serving.host, "port": port, "request_timeout_s": settings.serving.deadline_s + 5},
            logging_config=quiet,
        )
        ray_serve.run(graph(settings), name="matinee", route_prefix="/", blocking=False, logging_config=quiet)
        yield None if metrics_port is None else f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    finally:
        ray_serve.shutdown()
        ray.shutdown()


def _cpus() -> int:
    """Ray's CPUs are places, not cores: enough of them for every replica of a small machine."""
    return max(4, os.cpu_count() or 1)


def _wait_ready(url: str, stop: threading.Event) -> bool:
    """True once the gateway answers. An absent index does not hold the start up: the page says what to do."""
    for _ in range(READY_S * 4):
        if stop.is_set():
            return True
        try:
            if httpx.get(f"{url}/livez", timeout=2).is_success:
                return True
        except httpx.HTTPError:
            pass
        stop.wait(0.25)
    return False


if __name__ == "__main__":
    app()
