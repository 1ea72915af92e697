"""A full gateway refuses before its app begins: the same answer as the app's, over real connections that go on working."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import httpx
import pytest

from serve.placement.connections import LimitedProtocol
from tests.waiting import HANG_S, until

PLACES = 2
Serve = Callable[[], AbstractContextManager[str]]
_SEARCH = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = b'{"text": "x"}'
_SEARCH_WITH_BODY = _SEARCH + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_ALIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def url(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose places are all taken, by requests whose bodies do not come."""
    folder: Path = tmp_path_factory.mktemp("full")
    serving = {
        "deadline_s": HANG_S,
        "drain_s": HANG_S,
        "limits": {"body_s": HANG_S},
        "deployment": {"max_ongoing_requests": PLACES, "target_ongoing_requests": 1},
    }
    settings = local_graph.local_settings(folder, serving=serving, enhancer={"deadline_s": 1})
    films = local_graph.demo_films()[:50]
    with local_graph.serve_app(lambda: local_graph.build_local_graph(folder, films=films, settings=settings)) as url, ExitStack() as held:
        for _ in range(PLACES):
            held.enter_context(connected(url)).sendall(_SEARCH + b"Content-Length: 100\r\n\r\n")
        until(lambda: httpx.get(f"{url}/v1/info").status_code == 503)
        yield url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), HANG_S) as client:
        yield client


def answers(client: socket.socket, *asked: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Status, headers and body of the answers to requests that are sent at once; fewer where the server closes the connection."""
    client.sendall(b"".join(asked))
    found = []
    reader = h11.Connection(h11.CLIENT)
    for request in asked:
        reader.send(h11.Request(method=request.split()[0], target="/", headers=[("host", "localhost")]))
        reader.send(h11.EndOfMessage())
        response, body = None, b""
        while not isinstance(event := reader.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if event is h11.NEED_DATA:
                reader.receive_data(client.recv(65_536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        if response is None:
            return found
        found.append((response.status_code, dict(response.headers), body))
        if reader.their_state is not h11.DONE:
            return found
        reader.start_next_cycle()
    return found


def test_it_is_the_answer_that_the_app_gives(url: str) -> None:
    with connected(url) as client:
        # Behind another request on its connection, so the app refuses it.
        (_, _, _), (status, headers, body) = answers(client, _ALIVE, _SEARCH_WITH_BODY)
        ((early_status, early_headers, early_body),) = answers(client, _SEARCH_WITH_BODY)
    assert early_status == status == 503
    assert early_headers.keys() == headers.keys()
    unique = (b"x-request-id", b"date")
    assert [early_headers[name] for name in headers if name not in unique] == [headers[name] for name in headers if name not in unique]
    ids = [headers[b"x-request-id"].decode(), early_headers[b"x-request-id"].decode()]
    assert early_body.replace(ids[1].encode(), b"") == body.replace(ids[0].encode(), b"")


def test_its_connection_goes_on_and_its_body_is_no_request(url: str) -> None:
    hidden = _SEARCH + b"Content-Length: %d\r\n\r\n" % len(_ALIVE) + _ALIVE
    with connected(url) as client:
        for _ in range(3):
            assert [status for status, *_ in answers(client, hidden, _ALIVE)] == [503, 200]
        assert [status for status, *_ in answers(client, hidden, _ALIVE, hidden, hidden, _ALIVE)] == [503, 200, 503, 503, 200]


def test_a_client_may_name_the_request_and_end_the_connection(url: str) -> None:
    named = b"GET /v1/items HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n"
    with connected(url) as client:
        [(status, headers, body)] = answers(client, named, _ALIVE)
    assert (status, headers[b"x-request-id"], headers[b"connection"]) == (503, b"mine", b"close")
    assert b'"request_id":"mine"' in body


def test_head_gets_no_body(url: str) -> None:
    with connected(url) as client:
        [(status, headers, body), (alive, _, _)] = answers(client, b"HEAD /v1/items HTTP/1.1\r\nHost: localhost\r\n\r\n", _ALIVE)
    assert (status, body, alive) == (503, b"", 200)
    assert int(headers[b"content-length"]) > 0


def test_of_many_requests_at_once_the_connection_refuses_one_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse, refused = LimitedProtocol._refuse, []

    def counted(self: LimitedProtocol, *args: Any, **named: Any) -> None:
        refused.append(self)
        refuse(self, *args, **named)

    monkeypatch.setattr(LimitedProtocol, "_refuse", counted)
    with connected(url) as client:
        assert [status for status, *_ in answers(client, *[_SEARCH_WITH_BODY] * 100)] == [503] * 100
    # One for each read, and how many reads there are is the network's to say.
    assert 0 < len(refused) < 20


def test_answers_that_nobody_reads_do_not_pile_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, connections = LimitedProtocol.connection_made, []

    def with_little_room(self: LimitedProtocol, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connections.append(transport)
        made(self, transport)

    monkeypatch.setattr(LimitedProtocol, "connection_made", with_little_room)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect((urlsplit(url).hostname, urlsplit(url).port))
        for _ in range(20):
            client.sendall(_SEARCH_WITH_BODY * 100)
            # Whoever is answered behind it has seen the server read what came before.
            httpx.get(f"{url}/livez")
        assert connections[0].get_write_buffer_size() < 50_000


def test_pages_and_probes_are_answered(url: str) -> None:
    assert [httpx.get(f"{url}{path}").status_code for path in ("/", "/livez", "/docs")] == [200, 200, 200]
