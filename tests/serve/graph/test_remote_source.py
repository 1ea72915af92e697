"""Imports from a URI: read where the operator allowed it and an admin asks, from real servers; refused everywhere else."""

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import httpx
import pytest

from matinee.errors import SettingsError
from matinee.settings.load import load_settings
from serve.api.auth import hash_key
from serve.graph import remote_source
from tests.serve.api_client import Api, error
from tests.serve.graph.test_import_jobs import films, lines, title, worker

CONTENT = lines(films(4))


class Pages(http.server.BaseHTTPRequestHandler):
    """Some pages that a source may have."""

    def do_GET(self) -> None:
        pages: dict[str, tuple[int, bytes]] = {
            "/feeds/items.jsonl": (200, CONTENT),
            "/feeds/items.jsonl.gz": (200, gzip.compress(CONTENT)),
            "/feeds/cut.gz": (200, gzip.compress(CONTENT)[:-9]),
            "/feeds/text.gz": (200, CONTENT),
            "/feeds/moved": (302, b""),
        }
        status, body = pages.get(self.path.partition("?")[0], (404, b""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/private/items.jsonl")
        # A page that promises more than it sends, and stays open.
        stalls = "stalls" in self.path
        self.send_header("Content-Length", str(len(body) + 100 * stalls))
        self.end_headers()
        self.wfile.write(body)
        if stalls:
            self.server.stalled.wait()  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def pages() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.stalled = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stalled.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of this machine that counts as one of elsewhere."""
    monkeypatch.setattr(remote_source, "_is_own", lambda address: False)
    with pages() as url:
        yield url


async def ask(api: Api, uri: str, **more: Any) -> httpx.Response:
    return await api.post("/v1/imports", {"uri": uri}, **more)


def allowing(*prefixes: str) -> dict[str, Any]:
    return {"imports": {"sources": list(prefixes)}}


@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz", "items.jsonl?token=abc"])
async def test_lines_are_read_from_a_web_server(bent: Callable[..., Any], source: str, name: str) -> None:
    async with bent(serving=allowing(f"{source}/feeds/")) as api:
        response = await ask(api, f"{source}/feeds/{name}")
        assert response.status_code == 202, response.text
        job = response.json()
        assert (job["total"], job["source"]) == (4, f"{source}/feeds/{name}".partition("?")[0])
        assert await worker(api).work()
        assert await title(api, "line-3") == "Number 3"


async def test_lines_are_read_from_a_bucket(bent: Callable[..., Any], s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AWS_ENDPOINT_URL": s3, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    with fsspec.open("s3://bucket/exports/items.jsonl", "wb") as file:
        file.write(CONTENT)
    async with bent(serving=allowing("s3://bucket/exports/")) as api:
        assert (await ask(api, "s3://bucket/exports/items.jsonl")).json()["total"] == 4
        assert error(await ask(api, "s3://bucket/exports/nothing.jsonl")) == (422, "invalid")
        assert error(await ask(api, "s3://bucket/private/items.jsonl")) == (403, "forbidden")


@pytest.mark.parametrize(
    "path",
    [
        "/private/items.jsonl",
        "/feeds/../private/items.jsonl",
        "/feeds/%2e%2e/private/items.jsonl",
        "/feeds",
    ],
)
async def test_nothing_is_read_beyond_the_allowed_prefixes(bent: Callable[..., Any], source: str, path: str) -> None:
    async with bent(serving=allowing(f"{source}/feeds/")) as api:
        assert error(await ask(api, source + path)) == (403, "forbidden")
        assert error(await ask(api, "file:///etc/passwd")) == (403, "forbidden")


async def test_by_default_nothing_is_read(bent: Callable[..., Any], source: str) -> None:
    async with bent() as api:
        assert error(await ask(api, f"{source}/feeds/items.jsonl")) == (403, "forbidden")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "[fe80::1]"])
async def test_this_machine_is_never_read_although_it_is_allowed(bent: Callable[..., Any], host: str) -> None:
    async with bent(serving=allowing(f"http://{host}:9/feeds/")) as api:
        response = await ask(api, f"http://{host}:9/feeds/items.jsonl")
        # A machine without IPv6 can't resolve those.
        assert error(response) in [(403, "forbidden"), (503, "unavailable")]
        assert ":" in host or response.status_code == 403


@pytest.mark.parametrize(("name", "said"), [("moved", "302"), ("nothing", "404"), ("cut.gz", "cut off"), ("text.gz", "not gzip")])
async def test_a_source_that_will_not_do_imports_nothing(bent: Callable[..., Any], source: str, name: str, said: str) -> None:
    async with bent(serving=allowing(f"{source}/feeds/")) as api:
        refused = await ask(api, f"{source}/feeds/{name}")
        assert error(refused) == (422, "invalid")
        assert said in refused.json()["message"]
        assert (await api.get("/v1/imports")).json()["imports"] == []


async def test_a_source_that_stalls_is_given_up(bent: Callable[..., Any], source: str) -> None:
    async with bent(serving=allowing(f"{source}/feeds/") | {"bulk": {"stall_s": 0.2}}) as api:
        refused = await ask(api, f"{source}/feeds/items.jsonl?stalls")
        assert error(refused) == (503, "unavailable")
        assert "stalled" in refused.json()["message"]
        assert (await api.get("/v1/imports")).json()["imports"] == []


async def test_only_an_admin_names_a_uri(bent: Callable[..., Any], source: str) -> None:
    keys = [{"name": scope, "sha256": hash_key(scope), "scopes": [scope]} for scope in ("write", "admin")]
    async with bent(serving=allowing(f"{source}/feeds/") | {"keys": keys}) as api:
        codes = [
            (await ask(api, f"{source}/feeds/items.jsonl", headers={"Authorization": f"Bearer {key}"})).status_code
            for key in ("write", "admin")
        ]
        assert codes == [403, 202]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"uri": 1}', b'{"uri": "s3://b/k", "x": 1}', b'{"uri": "' + b"a" * 9000 + b'"}'])
async def test_bodies_that_name_no_uri(api: Api, body: bytes) -> None:
    assert (await api.raw("/v1/imports", body)).status_code in (413, 422)


@pytest.mark.parametrize("prefix", ["s3://bucket", "https://example.org", "file:///data/", "/data/", "https://me@example.org/feeds/"])
def test_a_prefix_that_would_allow_too_much_refuses_to_start(prefix: str) -> None:
    with pytest.raises(SettingsError, match="sources"):
        load_settings(flags={"serving": {"imports": {"sources": [prefix]}}})
