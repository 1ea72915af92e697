"""The whole graph in this process: uvicorn, the gateway, and the parts as functions. No Ray, and no port but the API's.

It answers as soon as the index is open. If a part can't go on, the process ends with an exit code, which the parent process can see.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import uvicorn
import uvloop
from fastapi import FastAPI

from matinee.errors import MatineeError
from matinee.settings.tree import Settings
from serve.api.app import create_app
from serve.api.auth import ApiKeys
from serve.api.exposition import export_metrics
from serve.graph.gateway import Gateway
from serve.graph.in_process import InProcessGraph, graph_in_process
from serve.placement.connections import limited_protocol
from serve.placement.watchdog import end_when_blocked
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from serve.telemetry.prometheus import PrometheusSink, SharedRegistry
from serve.telemetry.sinks import NullSink

HEALTH_S = 5.0


class _StuckError(MatineeError):
    """A part can't go on, and a thread of it may never end."""


Announce = Callable[[str | None], AbstractContextManager[None]]
"""The server calls it with the URL of the metrics once it answers, and leaves the context when it stops."""


def run(settings: Settings, listener: socket.socket, metrics_port: int | None, announce: Announce) -> None:
    """Serve on `listener` until SIGINT or SIGTERM. Raises `MatineeError` where a part can't start or can't go on."""
    logs.configure(settings.serving, "gateway")
    registry = SharedRegistry()

    def metrics_of(part: str) -> Metrics:
        return Metrics(PrometheusSink(registry, part) if settings.serving.metrics else NullSink())

    with _export_metrics(registry, metrics_port, settings) as metrics_url:
        uvloop.run(_serve(settings, listener, metrics_of, lambda: announce(metrics_url)))


@contextlib.contextmanager
def _export_metrics(registry: SharedRegistry, port: int | None, settings: Settings) -> Iterator[str | None]:
    """Prometheus text on loopback; yields its URL, or None without a port."""
    if port is None:
        yield None
        return
    with export_metrics(registry.registry, "127.0.0.1", port, settings.serving) as url:
        yield url


async def _serve(
    settings: Settings,
    listener: socket.socket,
    metrics_of: Callable[[str], Metrics],
    announce: Callable[[], AbstractContextManager[None]],
) -> None:
    async with graph_in_process(settings, metrics_of) as parts:
        gateway = Gateway(settings, parts.graph, metrics_of("gateway"))
        server = _Server(config(create_app(gateway, ApiKeys(settings.serving)), settings))
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, server.stop)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await asyncio.wait({serving, asyncio.create_task(server.answers.wait())}, return_when=asyncio.FIRST_COMPLETED)
        with announce(), end_when_blocked():
            trouble = await _watch(parts, serving)
            server.stop()
            await serving
        if isinstance(trouble, _StuckError):
            sys.stderr.write(f"error: {trouble}\n")
            sys.stderr.flush()
            # To close the parts, and to leave Python, is to wait for all of their threads.
            os._exit(trouble.exit_code)
        if trouble is not None:
            raise trouble


def config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the app."""
    drain = max(1, round(settings.serving.drain_s))
    return uvicorn.Config(
        app,
        http=limited_protocol(settings.serving, app.state.admission),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.serving.limits.keep_alive_s,
        timeout_graceful_shutdown=drain,
    )


async def _watch(parts: InProcessGraph, serving: "asyncio.Task[None]") -> MatineeError | None:
    """Wait for the server's end, or for a part that can't go on; returns that part's trouble."""
    loading, settled = asyncio.create_task(parts.load()), False
    try:
        while not serving.done():
            await asyncio.wait({serving, *({loading} if not loading.done() else ())}, timeout=HEALTH_S, return_when=asyncio.FIRST_COMPLETED)
            if not settled and loading.done():
                try:
                    loading.result()
                except MatineeError as error:
                    return error
                # The objects of the start live until the end. Freezing them saves the collector a pause of 0.1 s at each full
                # collection. Collect first, because frozen garbage would stay for ever.
                gc.collect()
                gc.freeze()
                settled = True
            try:
                parts.check_health()
            except RuntimeError as error:
                return _StuckError(f"a part of the server can't go on: {error}; start it again")
        return None
    finally:
        # No further model: the server ends.
        loading.cancel()


class _Server(uvicorn.Server):
    """uvicorn that says when it answers, and leaves signals to its starter."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()
