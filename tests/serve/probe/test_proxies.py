"""Which calls go through a proxy of the environment: those that lead outside, and none to a server of this machine or its cluster."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from matinee.client import calls
from matinee.client.http import Client, ServerError
from matinee.index.qdrant.connection import connect
from matinee.settings.addresses import is_inside
from matinee.settings.index import IndexSettings
from matinee.settings.serving import ProbeSettings, TracingSettings
from serve.probe.client import ProbeClient
from serve.telemetry import tracing

INSIDE = [
    "http://matinee-serve:1",
    "http://matinee.shop.svc:1",
    "http://matinee.shop.svc.cluster.local.:1",
    "http://127.0.0.2:1",
    "http://[::1]:1",
]
OUTSIDE = "http://matinee.example.com:1"


@pytest.mark.parametrize("url", [*INSIDE, "http://localhost:1", "http://nas.local/x", "https://host.docker.internal", "qdrant:6333"])
def test_inside(url: str) -> None:
    assert is_inside(url)


@pytest.mark.parametrize("url", [OUTSIDE, "http://10.0.0.7:8000", "http://[2001:db8::1]:8000", "https://svc.example.com", "http://[x"])
def test_outside_or_on_either_side(url: str) -> None:
    assert not is_inside(url)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of the proxy that the environment names."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def by_client(url: str) -> None:
    with suppress(ServerError):
        Client(url, timeout_s=5).send(calls.info())


def by_probe(url: str) -> None:
    async def ask() -> None:
        settings = ProbeSettings(url=url, deadline_s=5, key=SecretStr("k"))
        async with ProbeClient(url, settings, lambda *_: None, lambda *_: None) as client:
            with suppress(ServerError):
                await client.send("info", calls.info())

    asyncio.run(ask())


def by_index(url: str) -> None:
    async def ask() -> None:
        client = connect(IndexSettings(engine="qdrant", url=url))
        # Whatever it makes of no answer.
        with suppress(Exception):
            await client.get_collections()
        await client.close()

    asyncio.run(ask())


def by_trace(url: str) -> None:
    provider: TracerProvider = tracing._provider(TracingSettings(), url, "test")
    provider.get_tracer("t").start_span("s").end()
    provider.force_flush(1000)
    provider.shutdown()


@pytest.mark.parametrize("ask", [by_client, by_probe, by_index, by_trace])
def test_a_proxy_of_the_environment_is_asked_for_servers_outside_alone(ask: Callable[[str], None], proxied: list[str]) -> None:
    for url in INSIDE[:2]:
        ask(url)
    assert proxied == []
    ask(OUTSIDE)
    assert all(path.startswith(OUTSIDE) for path in proxied)
    assert proxied
