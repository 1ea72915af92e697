"""What a server is told of a new version's collection, over HTTP, and how a build waits until it has indexed it.

`MATINEE_TEST_QDRANT_URL` names a real server for those that can run on one.
"""

import asyncio
import json
import os
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import uvicorn
from qdrant_client import models

from bench.faults.fake_qdrant import Fake
from matinee.errors import IndexUnavailableError
from matinee.filters import ItemFilter
from matinee.index.qdrant import collection, query
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import ITEM, TEXT, DenseQuery, Manifest, Point, PopularQuery, Search, StoredQuery, item_payload
from matinee.items import Item
from matinee.settings.index import IndexSettings
from matinee.text.title_keys import title_keys
from tests.network import free_port
from tests.waiting import HANG_S

MANIFEST = Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 8, ITEM: 8}, titles=True)
VECTORS = np.random.default_rng(3).standard_normal((40, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
GREEN, YELLOW, GREY = "green", "yellow", "grey"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_POLL_S", 0.01)


def settings(url: str, **given: Any) -> IndexSettings:
    return IndexSettings.model_validate({"engine": "qdrant", "url": url, "timeout_s": 5, **given})


def test_the_settings_are_what_a_collection_is_made_with() -> None:
    made = query.collection(MANIFEST, settings("http://x:1", shards=3, replication_factor=3, write_consistency=2, quantization="binary"))
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == (3, 3, 2)
    assert made["quantization_config"] == models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    strict = made["strict_mode_config"]
    assert (strict.enabled, strict.unindexed_filtering_retrieve, strict.unindexed_filtering_update) == (True, False, False)
    assert query.collection(MANIFEST, settings("http://x:1", strict=False))["strict_mode_config"] is None


# against a server that is told what to say


class Scripted:
    """Answers with these states of its collection, one a question; the last one again. Keeps what it was told."""

    def __init__(self, states: Sequence[dict[str, Any] | int]) -> None:
        self.states = list(states)
        self.told: list[tuple[str, str, Any]] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method != "GET" or path.endswith("/exists"):
            self.told.append((method, path, body))
            return 200, {"exists": False} if path.endswith("/exists") else True
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return (state, None) if isinstance(state, int) else (200, state)


def info(status: str, **more: Any) -> dict[str, Any]:
    params = {"vectors": {"size": 8, "distance": "Cosine"}}
    hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 1}
    optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1, "default_segment_number": 0, "flush_interval_sec": 5}
    config = {"params": params, "hnsw_config": hnsw, "optimizer_config": optimizer}
    return {"status": status, "optimizer_status": "ok", "segments_count": 1, "config": config, "payload_schema": {}, **more}


@contextmanager
def serving(script: Scripted) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, result = script.answer(self.command, self.path, json.loads(text) if text else None)
            body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815  its names

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def completed(script: Scripted, **given: Any) -> None:
    with serving(script) as url:
        connection = Connection(settings(url, **given))
        try:
            await collection.complete(connection, "test.v1")
        finally:
            await connection.client.close()


async def test_a_build_waits_until_the_server_has_nothing_left_to_index() -> None:
    script = Scripted([info(GREEN), info(YELLOW), 503, info(GREY), info(GREEN), info(GREEN), info(YELLOW)])
    await completed(script)
    [(method, path, body)] = script.told
    assert (method, path.partition("?")[0]) == ("PATCH", "/collections/test.v1")
    assert body["optimizers_config"]["indexing_threshold"] == 20_000
    assert script.states == [info(YELLOW)], "it asked until the server said twice that it is done, also when it was away for a moment"


async def test_what_is_indexed_as_it_comes_is_only_waited_for() -> None:
    script = Scripted([info(YELLOW), info(GREEN)])
    await completed(script, defer_indexing=False)
    assert script.told == []


@pytest.mark.parametrize(
    ("state", "given", "says"),
    [
        (info("red"), {}, "can't index test.v1: red"),
        (info(YELLOW, optimizer_status={"error": "no space left"}), {}, "can't index test.v1: no space left"),
        (info(YELLOW), {"indexing_wait_s": 0.1}, r"has not indexed test\.v1 within 0\.1 s.*raise index\.indexing_wait_s"),
    ],
)
async def test_an_index_that_never_comes_fails_the_build(state: dict[str, Any], given: dict[str, Any], says: str) -> None:
    with pytest.raises(IndexUnavailableError, match=says):
        await completed(Scripted([state]), **given)


@pytest.mark.parametrize(("shared", "threshold"), [(False, 0), (True, None)])
async def test_indexing_waits_for_the_end_where_nobody_else_is_in_the_collection(*, shared: bool, threshold: int | None) -> None:
    script = Scripted([info(GREEN)])
    with serving(script) as url:
        connection = Connection(settings(url, read_fan_out=2))
        await collection.create(connection, "test.v1", MANIFEST, query.payload_indexes(MANIFEST), shared=shared)
        await connection.client.close()
    created, fan_out, *indexes = [body for method, path, body in script.told if not path.endswith("/exists")]
    assert (created.get("optimizers_config") or {}).get("indexing_threshold") == threshold
    assert fan_out["params"]["read_fan_out_factor"] == 2
    assert "titles" in {body["field_name"] for body in indexes}, "strict mode refuses a filter on what has no index"


# against one that has points: the fake one, or a real one


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    named = os.environ.get("MATINEE_TEST_QDRANT_URL")
    if named:
        yield named
        return
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Fake().app, host="127.0.0.1", port=port, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(HANG_S)


@pytest.fixture
async def store(server_url: str, request: pytest.FixtureRequest) -> AsyncIterator[QdrantStore]:
    made = QdrantStore(settings(server_url, **request.param), f"test-{uuid.uuid4().hex}")
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                await made.versions()
                break
            except IndexUnavailableError:
                await asyncio.sleep(0.01)
    yield made
    await made.destroy()
    await made.close()


def point(number: int) -> Point:
    item = Item(id=str(number), kind="film", title=f"Film {number}", genres=("Drama",), numbers={"votes": float(number)})
    return Point(item.uid("test"), item_payload(item, origin="file", revision=0), {TEXT: VECTORS[number], ITEM: VECTORS[-number]})


@pytest.mark.parametrize(
    "store",
    [
        {},
        {"quantization": "scalar"},
        {"quantization": "binary", "oversampling": 8},
        {"quantization": "product", "on_disk": True, "payload": "memory"},
        {"m": 32, "ef_construct": 200, "ef": 200, "defer_indexing": False, "read_consistency": "majority", "read_fan_out": 1},
    ],
    ids=["plain", "scalar", "binary", "product", "wide"],
    indirect=True,
)
async def test_a_version_of_each_kind_is_built_indexed_and_searched(store: QdrantStore) -> None:
    points = [point(number) for number in range(len(VECTORS))]
    index = await store.create(MANIFEST)
    await index.upsert(points)
    await store.finish(MANIFEST)
    await store.switch("v1")
    assert (await store.current()) == MANIFEST
    opened = await store.open("v1")
    searches: list[Search] = [
        Search(DenseQuery(VECTORS[5]), 3),
        Search(StoredQuery(points[5].id), 3, filter=ItemFilter(genres=("Drama",)), exclude=frozenset({points[5].id})),
        Search(PopularQuery(), 3, titles=tuple(title_keys("film 7"))),
    ]
    near, similar, named = await opened.search(searches)
    assert near[0].id == points[5].id
    assert points[5].id not in {hit.id for hit in similar}
    assert [hit.id for hit in named] == [points[7].id]
    for exact in (True, False):
        assert await opened.facets("genres", exact=exact) == [("Drama", len(points))]
