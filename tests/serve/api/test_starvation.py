"""The attacks on a gateway's places over real connections: many requests that never send their body."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serve.api.auth import new_key
from tests.waiting import HANG_S

CONNECTIONS = 330
GREEDY, GREEDY_ENTRY = new_key("greedy", ("read",))
SHOP, SHOP_ENTRY = new_key("shop", ("read",))


@pytest.fixture
def url(local_graph: Any, tmp_path: Path) -> Iterator[str]:
    keys = [GREEDY_ENTRY.model_dump(), SHOP_ENTRY.model_dump()]
    # The usual 256 places; and bodies that may take for ever, so that nothing but the limits helps.
    serving = {"keys": keys, "deadline_s": HANG_S, "drain_s": HANG_S, "limits": {"body_s": HANG_S}}
    settings = local_graph.local_settings(tmp_path, serving=serving)
    with local_graph.serve_app(
        lambda: local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:3], settings=settings)
    ) as url:
        yield url


@contextmanager
def unfinished(url: str, count: int, key: str | None) -> Iterator[list[socket.socket]]:
    """Connections that announce a body and send one byte of it."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    request = f"POST /v1/search HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_connection((host, port), HANG_S)) for _ in range(count)]
        for each in sockets:
            each.sendall(request.encode())
        yield sockets


def status(connection: socket.socket) -> bytes:
    return connection.recv(12)[9:12]


def search(url: str) -> int:
    body = {"text": "x", "mode": "sparse"}
    return httpx.post(f"{url}/v1/search", json=body, headers={"authorization": f"Bearer {SHOP}"}, timeout=HANG_S).status_code


def test_connections_without_a_key_starve_nobody(url: str) -> None:
    with unfinished(url, CONNECTIONS, None) as connections:
        assert {status(each) for each in connections} == {b"401"}
        assert search(url) == 200


def test_connections_of_one_key_leave_places_for_another(url: str) -> None:
    with unfinished(url, CONNECTIONS, GREEDY) as connections:
        # Three quarters of the places are held by bodies that do not come; the rest of the requests is refused at once.
        for each in connections:
            each.settimeout(0)
        refused: set[socket.socket] = set()
        while len(refused) < CONNECTIONS - 192:
            assert search(url) == 200
            for each in set(connections) - refused:
                try:
                    assert status(each) == b"429"
                except BlockingIOError:
                    continue
                refused.add(each)
        assert len(refused) == CONNECTIONS - 192
        assert search(url) == 200
