"""`matinee.client`: a running server found and asked, and every way it can fail explained; real sockets, no fixed ports."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from matinee.client import calls
from matinee.client.calls import Call
from matinee.client.http import AsyncClient, Client, ServerError
from matinee.client.items import Items, read_writes
from matinee.client.server_file import announce, read_living, read_server_file
from matinee.items import Item
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"home": tmp_path}, environ={})


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def other_server() -> Iterator[Any]:
    """A server that is not Matinee: it answers everything with `status` and `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(server.body)  # type: ignore[attr-defined]

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    titles = {"Inception", "Metropolis", "Beauty and the Beast"}
    return [film for i, film in enumerate(local_graph.demo_films()) if i % 10 == 0 or film.title in titles]


@pytest.fixture(scope="module")
def local_app_url(local_graph: Any, films: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of fewer films than the shared one."""
    home = tmp_path_factory.mktemp("home")
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=films)) as url:
        yield url


def write_server_file(settings: Settings, url: str, pid: int | None = None) -> None:
    settings.server_file.write_text(json.dumps({"url": url, "pid": os.getpid() if pid is None else pid}), encoding="utf-8")


def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"url": 1, "pid": 1}', '{"url": "http://x"}', '{"url": "http://x", "pid": "1"}'])
def test_a_damaged_server_file_names_no_server(settings: Settings, text: str) -> None:
    settings.server_file.write_text(text, encoding="utf-8")
    assert read_server_file(settings.server_file) is None
    assert Client.find_running(settings) is None


def test_a_process_is_announced_while_it_runs_and_takes_back_only_its_own_word(settings: Settings) -> None:
    path = settings.home_dir / "new" / "server.json"
    with announce(path, "http://127.0.0.1:1", "http://127.0.0.1:2/metrics"):
        assert read_living(path) == {"url": "http://127.0.0.1:1", "pid": os.getpid(), "metrics": "http://127.0.0.1:2/metrics"}
    assert list(path.parent.iterdir()) == []
    with announce(path, "http://127.0.0.1:1", ""):
        path.write_text(json.dumps({"url": "http://127.0.0.1:3", "pid": 2**30}), encoding="utf-8")
    assert read_server_file(path) is not None
    assert read_living(path) is None


def test_without_a_server_file_none_runs(settings: Settings) -> None:
    assert Client.find_running(settings) is None


@pytest.mark.parametrize("pid", [10**12, 10**30])
def test_a_pid_that_can_not_be_is_a_dead_server(settings: Settings, local_app_url: str, pid: int) -> None:
    write_server_file(settings, local_app_url, pid)
    assert Client.find_running(settings) is None


def test_a_server_whose_process_died_does_not_run(settings: Settings, local_app_url: str) -> None:
    write_server_file(settings, local_app_url, dead_pid())
    assert Client.find_running(settings) is None


def test_a_process_that_listens_nowhere_is_no_server(settings: Settings, free_port: int) -> None:
    write_server_file(settings, f"http://127.0.0.1:{free_port}")
    assert Client.find_running(settings) is None


def test_a_live_server_is_found_and_says_which_catalogue_it_serves(settings: Settings, local_app_url: str) -> None:
    write_server_file(settings, local_app_url)
    server = Client.find_running(settings)
    assert server is not None
    assert server.url == local_app_url
    assert server.of("demo") is server
    assert server.of("books") is None
    with pytest.raises(ServerError, match="has no catalogue 'books'"):
        server.require("books")
    server.send(calls.create_catalogue({"name": "books"}))
    books = server.of("books")
    assert books is not None
    assert books.send(calls.info())["catalogue"] == "books"
    assert Items(books).put([b'{"id": "b1", "title": "Emma"}']).written == 1
    assert [one["items"] for one in books.send(calls.catalogues())["catalogues"]][1] == 1
    assert server.send(calls.info())["catalogue"] == "demo"

    async def ask() -> str:
        async with AsyncClient(local_app_url, key=None, timeout_s=60, direct=True, connections=1, catalogue="books") as client:
            return (await client.send(calls.info()))["catalogue"]

    assert asyncio.run(ask()) == "books"
    server.send(calls.delete_catalogue("books"))


def test_answers_come_as_they_are(local_app_url: str) -> None:
    server = Client(f"{local_app_url}/")
    assert server.send(calls.recommend({"likes": ["Inception"], "k": 2}))["likes"][0]["title"] == "Inception"
    assert len(server.send(calls.items(3, q="the", cursor=None))["items"]) == 3


@pytest.mark.parametrize(
    ("path", "body", "code", "exit_code"),
    [
        ("/v1/recommend", {"likes": ["Zzyzx Qqqq"]}, "not_found", 6),
        ("/v1/recommend", {"likes": ["Beauty and the Beast"]}, "ambiguous_title", 6),
        ("/v1/search", {"text": "x", "k": 999}, "invalid", 2),
        ("/v1/nothing", {}, "not_found", 6),
    ],
)
def test_a_refusal_has_the_servers_code_and_message(local_app_url: str, path: str, body: Any, code: str, exit_code: int) -> None:
    with pytest.raises(ServerError) as refusal:
        Client(local_app_url).send(Call("POST", path, body=body))
    assert (refusal.value.code, refusal.value.exit_code) == (code, exit_code)
    assert bool(refusal.value.candidates) is (code == "ambiguous_title")
    assert str(refusal.value)


def test_a_server_that_does_not_answer_is_explained(free_port: int) -> None:
    with pytest.raises(ServerError, match=r"does not answer \(ConnectError\)") as refusal:
        Client(f"http://127.0.0.1:{free_port}").send(calls.info())
    assert refusal.value.exit_code == 5


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://[::1", "http://a:b", "127.0.0.1:8000"])
def test_what_is_no_url_is_explained(url: str) -> None:
    with pytest.raises(ServerError, match="is not the URL of a server") as refusal:
        Client(url).send(calls.info())
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
def test_a_key_that_can_not_be_sent_is_explained_without_being_shown(local_app_url: str, key: str) -> None:
    with pytest.raises(ServerError, match="API key") as refusal:
        Client(local_app_url, key=key).send(calls.info())
    assert key not in str(refusal.value)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[]"), (404, b'"no"'), (502, b""), (200, b"\xff")])
def test_a_server_that_is_not_matinee_is_explained(other_server: Any, status: int, body: bytes) -> None:
    other_server.status, other_server.body = status, body
    with pytest.raises(ServerError, match=f"answered {status}, but not as a Matinee server does"):
        Client(f"http://127.0.0.1:{other_server.server_port}").send(calls.info())


def test_an_error_without_an_envelope_still_has_a_message(other_server: Any) -> None:
    other_server.status, other_server.body = 500, b'{"detail": "oops"}'
    with pytest.raises(ServerError, match="oops"):
        Client(f"http://127.0.0.1:{other_server.server_port}").send(calls.info())


@pytest.mark.parametrize(
    ("status", "body", "code"), [(200, b"<html>", "malformed"), (503, b'{"code": "overloaded", "message": "m"}', "overloaded")]
)
async def test_both_clients_fail_alike(other_server: Any, free_port: int, status: int, body: bytes, code: str) -> None:
    other_server.status, other_server.body = status, body
    for port, expected in ((other_server.server_port, code), (free_port, "unreachable")):
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(ServerError) as waited:
            await asyncio.to_thread(Client(url).send, calls.info())
        async with AsyncClient(url, key=None, timeout_s=60, direct=True, connections=1) as client:
            with pytest.raises(ServerError) as awaited:
                await client.send(calls.info())
        both = [(str(error.value), error.value.code, error.value.status) for error in (waited, awaited)]
        assert both[0] == both[1]
        assert both[0][1] == expected


async def test_both_clients_give_up_in_time_and_say_after_how_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"/v1/info gave no answer within 0\.1 s$") as waited:
            await asyncio.to_thread(Client(url, timeout_s=0.1).send, calls.info())
        async with AsyncClient(url, key=None, timeout_s=0.1, direct=True, connections=1) as client:
            with pytest.raises(ServerError, match=r"/v1/info gave no answer within 0\.1 s$") as awaited:
                await client.send(calls.info())
    assert waited.value.code == awaited.value.code == "timeout"


async def test_writes_are_items_and_tombstones_with_their_revisions(local_app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Client(local_app_url)
    assert read_writes(server, 0) == ([], None)
    film = Item(id="mine", kind="film", title="My Film", year=2024)
    put: Call[dict[str, Any]] = Call("PUT", "/v1/items", body={"items": [film.facts()]})
    [written] = server.send(put)["items"]
    server.send(Call("DELETE", "/v1/items/metropolis-1927"))
    entries, _ = read_writes(server, 0)
    mine, gone = sorted(entries, key=lambda entry: entry.revision)
    assert (mine.id, mine.revision, mine.item) == (written["id"], written["revision"], film)
    assert (gone.item, gone.revision > mine.revision) == (None, True)
    assert read_writes(server, mine.revision) == ([gone], None)
    assert read_writes(server, gone.revision) == ([], None)
    monkeypatch.setattr("matinee.client.items._PAGE", 1)
    first, cursor = read_writes(server, 0)
    second, _ = read_writes(server, 0, cursor)
    assert sorted(first + second, key=lambda entry: entry.revision) == [mine, gone]


def test_an_upload_that_ends_early_says_how_many_lines_are_done(local_app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.client.items.SLICE", 2)
    server = Client(local_app_url)
    server.send(Call("POST", "/v1/catalogues", body={"name": "short"}))

    def lines() -> Iterator[bytes]:
        yield from (b'{"title": "One"}\n', b'{"title": "Two"}\n')
        server.send(Call("DELETE", "/v1/catalogues/short"))
        yield b'{"title": "Three"}\n'

    with pytest.raises(
        ServerError, match=r"^the first 2 lines are done\. Of those after them, .*: there is no catalogue 'short'"
    ) as failed:
        Items(server.of("short")).put(lines())
    assert failed.value.status == 404
