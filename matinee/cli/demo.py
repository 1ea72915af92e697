"""`matinee demo`: the models, the bundled films and the server, in one go. Each step is printed.

Starts the ingest and the server as processes and stops them with itself. Does nothing that the other commands can't do one by one.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from matinee import demo as films
from matinee.cli.errors import explain_errors
from matinee.cli.output import err
from matinee.client.http import Client
from matinee.client.server_file import read_server_file
from matinee.errors import MatineeError
from matinee.index.factory import open_store
from matinee.index.protocols import closing
from matinee.models.fetch import fetch_models
from matinee.settings.addresses import bound_socket
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

_READY_S = 300


@explain_errors()
def demo(
    port: Annotated[int | None, typer.Option(help="port of the page and the API; by default 8000, or a free one")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="also export metrics on loopback ports and run the recall probe")] = False,
) -> None:
    """Everything at once: fetch the models, ingest the bundled films, serve them, and say where to look. Ctrl-C stops it.

    [dim]matinee demo --port 9000[/]
    """
    run(load_settings(flags={"catalogue": "demo"}), port, err, metrics=metrics)


def run(settings: Settings, port: int | None, console: Console, *, metrics: bool = False) -> None:
    """Serve the bundled films until Ctrl-C; `metrics` exports metrics and runs the recall probe.

    Raises `MatineeError` with the step that failed.
    """
    running = Client.find_running(settings)
    if running is not None:
        console.print(f"a server is running already: open {escape(running.url)}/ (stop it first to start the demo anew)", highlight=False)
        return
    _fetch_models(settings, console)
    if not asyncio.run(_has_films(settings)):
        console.print("ingesting the bundled films ...")
        _child(["train.ingest", "--demo"], settings)
    _serve(settings, port if port is not None else _free_port(settings.serving.host, settings.serving.port), console, metrics)


def _fetch_models(settings: Settings, console: Console) -> None:
    """The first time takes a minute or two; later ones nothing."""
    with console.status("models ...") as status:

        def progress(step: str) -> None:
            status.update(f"models: {escape(step)}")
            console.print(f"  {step}", highlight=False, markup=False)

        fetch_models(settings, progress, converted=True)
    console.print("models are ready")


async def _has_films(settings: Settings) -> bool:
    """Whether the current version was built from these very films."""
    async with closing(open_store(settings)) as store:
        current = await store.current()
    return current is not None and current.source == films.source() and current.recipe == settings.index.recipe


def _free_port(host: str, preferred: int) -> int:
    """`preferred`, or 0 (any) where it is taken."""
    try:
        bound_socket(host, preferred).close()
    except OSError:
        return 0
    return preferred


def _environ(settings: Settings) -> dict[str, str]:
    """That of the child processes: the demo's catalogue, whatever a settings file says about the user's own."""
    return os.environ | {"MATINEE_CATALOGUE": settings.catalogue}


def _child(args: list[str], settings: Settings) -> None:
    done = subprocess.run([sys.executable, "-m", *args], check=False, env=_environ(settings))  # noqa: S603
    if done.returncode:
        raise MatineeError(f"`python -m {' '.join(args)}` failed with exit code {done.returncode}; the lines above say why")


def _serve(settings: Settings, port: int, console: Console, metrics: bool) -> None:
    console.print("starting the server ...")
    # A group of its own: Ctrl-C reaches this process, which then stops the server in order.
    command = [sys.executable, "-m", "serve", "--port", str(port), *(["--metrics-port", "0"] if metrics else [])]
    server = subprocess.Popen(command, start_new_session=True, env=_environ(settings))  # noqa: S603
    probe: subprocess.Popen[bytes] | None = None
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    try:
        for _ in range(_READY_S * 4):
            announced = read_server_file(settings.server_file)
            if stop.is_set() or server.poll() is not None or (announced is not None and announced["pid"] == server.pid):
                break
            stop.wait(0.25)
        announced = read_server_file(settings.server_file)
        if announced is not None and server.poll() is None and not stop.is_set():
            _welcome(announced["url"], console)
            probe = _probe(settings, announced["url"]) if metrics else None
        while server.poll() is None and not stop.is_set():
            stop.wait(0.5)
    finally:
        for process in filter(None, (probe, server)):
            if process.poll() is None:
                process.terminate()
        if probe is not None:
            probe.wait()
        code = server.wait()
    if code and not stop.is_set():
        raise MatineeError(f"the server ended with exit code {code}; the lines above say why")


def _probe(settings: Settings, url: str) -> "subprocess.Popen[bytes]":
    """The recall probe beside the server; it says itself where its metrics are."""
    port = _free_port(settings.probe.metrics_host, settings.probe.metrics_port)
    command = [sys.executable, "-m", "serve.probe", "--url", url, "--metrics-port", str(port)]
    return subprocess.Popen(command, start_new_session=True, env=_environ(settings))  # noqa: S603


def _welcome(url: str, console: Console) -> None:
    body = '{"likes": ["Inception"], "k": 3}'
    url = escape(url)
    console.print(f"\n[bold green]ready[/]: open [bold]{url}/[/] in a browser, or paste\n", highlight=False)
    console.print(f"  curl -s {url}/v1/recommend -H 'content-type: application/json' -d '{body}'\n", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops everything.")
