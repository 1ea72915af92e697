"""The attacks of clients that take their time, over real connections: headers that never end, answers that nobody reads."""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from fastapi import FastAPI

from matinee.client.http import AsyncClient, Client
from matinee.index.qdrant.connection import connect
from matinee.models.openai_server import ServerBackend
from matinee.settings.addresses import IDLE_S
from matinee.settings.index import IndexSettings
from matinee.settings.load import load_settings
from matinee.settings.models import EnhancerSettings
from matinee.settings.serving import ServingSettings
from serve.api.admission import Admission
from serve.placement import process
from serve.placement.connections import Connections, limited_protocol
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until

PLACES = 4
SOON_S = 0.5
Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def serve(local_graph: Any, tmp_path: Path) -> Serve:
    @contextmanager
    def start(**serving: Any) -> Iterator[str]:
        # Whatever a test does not set may take for ever, so that nothing but its limit helps.
        serving["limits"] = {"header_s": HANG_S, "body_s": HANG_S} | serving.get("limits", {})
        places = {"max_ongoing_requests": PLACES, "target_ongoing_requests": 1}
        # A description takes part of a request's time.
        enhancer = {"deadline_s": SOON_S}
        given = {"deadline_s": HANG_S, "drain_s": HANG_S, "deployment": places} | serving
        settings = local_graph.local_settings(tmp_path, serving=given, enhancer=enhancer)
        films = local_graph.demo_films()[:50]
        with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=films, settings=settings)) as url:
            yield url

    return start


@contextmanager
def clients(url: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections that send this, with little room for what comes back."""
    with ExitStack() as held:
        sockets = []
        for _ in range(count):
            client = held.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(HANG_S)
            client.connect((urlsplit(url).hostname, urlsplit(url).port))
            # The server may close it, or read no more of it.
            client.setblocking(False)
            with suppress(OSError):
                client.send(sent)
            client.settimeout(HANG_S)
            sockets.append(client)
        yield sockets


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    parts = []
    with suppress(ConnectionResetError):
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return not client.recv(65_536)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def search(url: str) -> int:
    return httpx.post(f"{url}/v1/search", json={"text": "x", "mode": "sparse"}, timeout=HANG_S).status_code


def repeated(path: str, count: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * count


def test_headers_that_do_not_end_close_their_connection(serve: Serve) -> None:
    with serve(limits={"header_s": SOON_S}) as url, clients(url, 60, b"GET / HT") as attackers:
        assert {rest(attacker) for attacker in attackers} == {b""}
        assert search(url) == 200


def test_next_headers_that_do_not_end_close_it_too(serve: Serve) -> None:
    with serve(limits={"header_s": SOON_S, "keep_alive_s": 1}) as url, clients(url, 1, repeated("/livez", 1)) as [attacker]:
        assert attacker.recv(12) == b"HTTP/1.1 200"
        attacker.sendall(b"GET / HT")
        assert b"HTTP/1.1" not in rest(attacker)


def test_a_refused_body_that_drips_keeps_no_connection(serve: Serve) -> None:
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    with serve(limits={"header_s": SOON_S, "keep_alive_s": 1}) as url, clients(url, 1, head) as [attacker]:
        assert attacker.recv(12) == b"HTTP/1.1 404"

        def drip() -> bool:
            try:
                attacker.send(b"x")
            except OSError:
                return True
            return False

        until(drip)


def test_a_connection_is_used_again(serve: Serve) -> None:
    with serve(limits={"header_s": SOON_S}) as url, clients(url, 1, repeated("/livez", 30)) as [client]:
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 30:
            answers += (part := client.recv(65_536))
            assert part, "the server closed it"


def test_where_all_connections_wait_for_headers_the_oldest_makes_room(serve: Serve) -> None:
    with serve(limits={"connections": 20}) as url, clients(url, 50, b"GET / HT") as attackers:
        assert search(url) == 200
        until(lambda: sum(map(closed, attackers)) >= 31)
        assert not closed(attackers[-1])


def test_answers_that_nobody_reads_give_their_places_back(serve: Serve) -> None:
    # Refusals are short: where all of them fit into the kernel's buffers, nothing is unread for the server, and the connection is idle.
    with (
        serve(deadline_s=1, limits={"keep_alive_s": 1}) as url,
        clients(url, 3 * PLACES, repeated("/v1/items?limit=50", 2000)) as attackers,
    ):
        for attacker in attackers:
            assert attacker.recv(8) == b"HTTP/1.1"
        ports = {attacker.getsockname()[1] for attacker in attackers}
        until(lambda: not ports & served(url))
        until(lambda: search(url) == 200)


def served(url: str) -> set[int]:
    """The ports of the clients whose connections the server has open. They can't tell: what it sent before is still unread."""
    here = psutil.Process().net_connections("tcp")
    return {each.raddr.port for each in here if each.raddr and each.laddr.port == urlsplit(url).port}


def test_the_page_and_its_files_hold_no_places(serve: Serve) -> None:
    with serve() as url, clients(url, 5 * PLACES, repeated("/docs-assets/swagger-ui-bundle.js", 6)) as attackers:
        for attacker in attackers:
            assert attacker.recv(12) == b"HTTP/1.1 200"
        assert search(url) == 200


def test_one_address_gets_its_share_of_the_connections() -> None:
    limits = Connections(ServingSettings.model_validate({"limits": {"share": 0.5}, "trusted_proxies": ["10.9.0.0/16"]}), most=8)
    held = [asyncio.Protocol() for _ in range(9)]
    assert [limits.enter(each, "10.0.0.1") for each in held[:5]] == [True] * 4 + [False]
    assert limits.enter(held[5], "10.0.0.2")
    limits.leave(held[0])
    limits.leave(held[0])
    assert [limits.enter(each, "10.0.0.1") for each in held[6:8]] == [True, False]
    # The proxy's connections are those of many clients.
    assert [limits.enter(asyncio.Protocol(), "10.9.0.1") for _ in range(4)] == [True] * 3 + [False]


def test_a_server_may_open_all_files_that_its_process_can_get() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
        limited_protocol(ServingSettings(), Admission(ServingSettings(), Metrics(MemorySink())))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_our_clients_close_an_idle_connection_before_any_server_does(tmp_path: Path) -> None:
    """A request that is sent while the other side closes gets no answer. uvicorn and Qdrant close after 5 s unless told otherwise."""
    qdrant = connect(IndexSettings(engine="qdrant", url="http://qdrant.shop.svc:6333"))
    http = AsyncClient("http://localhost:1", key=None, timeout_s=1, direct=True, connections=1)
    model = ServerBackend(EnhancerSettings(engine="openai", url="http://llm.shop.svc/v1", model="m"))
    pools = [
        qdrant.http.client._async_client._transport._pool,
        http._client._transport._pool,
        Client("http://localhost:1", direct=True)._client._transport._pool,
        model._client._transport._pool,
    ]
    assert {pool._keepalive_expiry for pool in pools} == {IDLE_S}
    settings = load_settings({"home": tmp_path}, environ={})
    app = FastAPI()
    app.state.admission = None
    assert IDLE_S < 5 < process.config(app, settings).timeout_keep_alive == settings.serving.limits.keep_alive_s
