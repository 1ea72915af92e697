"""Start the whole graph on this machine: `python -m serve`.

    python -m serve                       # http://127.0.0.1:8000, settings from MATINEE_* and MATINEE_CONFIG
    python -m serve --port 0              # any free port
    python -m serve --metrics-port 9100   # and Prometheus text on http://127.0.0.1:9100/metrics (no token; off without the flag)
    python -m serve key reader            # print a new API key and the settings entry that admits it
    python -m serve check                 # check the settings, fetch, verify and convert the models, and stop
    python -m serve openapi               # print the OpenAPI document, as docs/openapi.json holds it

Ctrl-C stops everything. The parts run in this process, or as Ray Serve deployments where `serving.placement` or the number of replicas
asks for that. On a cluster KubeRay starts the same graph from a Serve config (`serve.app:build`).
"""

import asyncio
import contextlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from matinee.cli.errors import explain_errors
from matinee.client.server_file import announce
from matinee.errors import SettingsError
from matinee.events import check_uri
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_store
from matinee.index.protocols import closing
from matinee.models.fetch import fetch_models
from matinee.settings.addresses import bound_socket, url_of
from matinee.settings.load import load_settings
from matinee.settings.serving import KEY_SCOPE, SCOPES
from matinee.settings.tree import Settings
from serve.placement import local_ray
from serve.placement.choice import choose

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="port of the page and the API (serving.port); 0: a free one")] = None,
    host: Annotated[str | None, typer.Option(help="address that the server binds (serving.host)")] = None,
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
def key(
    name: Annotated[str, typer.Argument(help="name of the key, as logs and limits show it")],
    scope: Annotated[
        list[str], typer.Option(help=f"what the key may do: {', '.join(SCOPES)}, or in a catalogue such as films:read; repeatable")
    ] = ["read"],  # noqa: B006
) -> None:
    """Print a new API key, once, and the entry for `serving.keys` that admits it."""
    from serve.api.auth import new_key

    unknown = [one for one in scope if not re.fullmatch(KEY_SCOPE, one)]
    if unknown:
        raise SettingsError(f"unknown scope {', '.join(sorted(unknown))}: use {', '.join(SCOPES)}, or films:read for the catalogue films")
    secret, entry = new_key(name, tuple(one for what in SCOPES for one in dict.fromkeys(scope) if one.rpartition(":")[2] == what))
    sys.stdout.write(f"key (shown once): {secret}\nserving.keys entry: {entry.model_dump_json()}\n")


@app.command()
def check() -> None:
    """Check the settings, and fetch, verify and convert the models they name: what a pod does before it serves. Prints what it did."""
    # Models only: an image is built by another user than it runs as.
    with explain_errors(private=False):
        settings = load_settings()
        _check(settings, index=False)
    console.print(f"settings and models are complete: catalogue {settings.catalogue}", highlight=False)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from serve.api.openapi import document

    sys.stdout.write(document())


def run(settings: Settings, *, metrics_port: int | None = None) -> None:
    """Start the graph where the settings place it, announce the server in `server.json`, and serve until a signal."""
    placement = choose(settings)
    with _listener(settings) as listener:
        port = int(listener.getsockname()[1])
        url = url_of(settings.serving.host, port)
        if placement == "ray":
            local_ray.prepare(settings, metrics=metrics_port is not None)
        _check(settings)
        if placement == "process":
            # Imported here, because the other placement does not need it.
            from serve.placement import process

            process.run(settings, listener, metrics_port, lambda metrics: _announce(settings, url, metrics))
            return
    # Serve binds the port itself.
    stop = threading.Event()
    with local_ray.running(settings, url, port, metrics_port, stop) as metrics, _announce(settings, url, metrics):
        local_ray.wait(stop)


@contextlib.contextmanager
def _announce(settings: Settings, url: str, metrics: str | None) -> Iterator[None]:
    """Say that the server answers, here and in `server.json`, until the end of the `with`."""
    with announce(settings.server_file, url, metrics):
        # Rich would read an IPv6 address in brackets as markup.
        shown = escape(url)
        console.print(f"Matinee serves on [bold]{shown}[/] (page: {shown}/, API: {shown}/docs); Ctrl-C stops it", highlight=False)
        yield
        console.print("stopping ...")


@contextlib.contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    """A socket on the configured port, or on a free one for 0. Raises `SettingsError` where it is taken."""
    try:
        listener = bound_socket(settings.serving.host, settings.serving.port)
    except OSError as error:
        raise SettingsError(
            f"serving.port {settings.serving.port} on {settings.serving.host}: {error.strerror}; stop what runs there, or use --port 0"
        ) from None
    with contextlib.closing(listener):
        yield listener


def _check(settings: Settings, *, index: bool = True) -> None:
    """Find here, in seconds and in plain words, what would otherwise fail in a replica: models, and an index that is locked or broken."""

    def say(step: str) -> None:
        console.print(f"  {step}", highlight=False, markup=False)

    fetch_models(settings, say, converted=True)
    if settings.events.uri is not None:
        check_uri(settings.events.uri)
    if index and settings.index.engine == "edge":
        asyncio.run(_try_index(settings))


async def _try_index(settings: Settings) -> None:
    async with closing(ActiveIndex(open_store(settings))) as active:
        await active.refresh()
        if active.manifest is None:
            console.print(f"catalogue {settings.catalogue!r} has no index yet: `matinee ingest FILE` builds one, also while this runs")


if __name__ == "__main__":
    app()
