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
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.imports import new_job
from matinee.index.protocols import IndexStore
from matinee.index.qdrant import collection, query
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.index import QdrantIndex
from matinee.index.qdrant.store import QdrantStore
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.types import (
    ITEM,
    TEXT,
    DenseQuery,
    HybridQuery,
    Manifest,
    Point,
    PopularQuery,
    Scroll,
    Search,
    StoredQuery,
    item_payload,
)
from matinee.items import Item
from matinee.settings.index import IndexSettings
from matinee.text.title_keys import title_keys
from matinee.vectors import Sparse
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
        self.answers: dict[str, Any] = {}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method != "GET" or path.endswith("/exists"):
            self.told.append((method, path, body))
            known = [answer for end, answer in self.answers.items() if path.partition("?")[0].endswith(end)]
            return 200, known[0] if known else {"exists": False} if path.endswith("/exists") else True
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
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
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
    assert {(method, path.partition("?")[0]) for method, path, _ in script.told} == {("PATCH", "/collections/test.v1")}
    begun, resumed = [{name: value for name, value in body["optimizers_config"].items() if value is not None} for *_, body in script.told]
    assert begun == {"indexing_threshold": 20_000}
    assert resumed == {}, "a server that was started again is told to go on"
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
    script.answers["/index"] = {"operation_id": 0, "status": "completed"}
    with serving(script) as url:
        connection = Connection(settings(url, read_fan_out=2))
        await collection.create(connection, "test.v1", MANIFEST, query.payload_indexes(MANIFEST), shared=shared)
        await connection.client.close()
    created, fan_out, *indexes = [body for method, path, body in script.told if not path.endswith("/exists")]
    assert (created.get("optimizers_config") or {}).get("indexing_threshold") == threshold
    assert fan_out["params"]["read_fan_out_factor"] == 2
    assert "titles" in {body["field_name"] for body in indexes}, "strict mode refuses a filter on what has no index"


async def test_a_search_says_how_many_copies_answer_and_how_candidates_are_ranked_again() -> None:
    script = Scripted([info(GREEN)])
    script.answers["/points/query/batch"] = [{"points": []}]
    script.answers["/facet"] = {"hits": []}
    with serving(script) as url:
        for given in ({}, {"read_consistency": "majority", "quantization": "binary", "oversampling": 4, "ef": 200}):
            connection = Connection(settings(url, **given))
            index = QdrantIndex(connection, "test.v1", MANIFEST)
            assert await index.search([Search(StoredQuery("00000000-0000-0000-0000-000000000001"), 3)]) == [[]]
            assert await index.facets("genres", exact=False) == []
            await connection.client.close()
    paths = [path for _, path, _ in script.told]
    assert ["consistency=majority" in path for path in paths] == [False, False, True, True]
    plain, _, refined, facet = [body for *_, body in script.told]
    assert plain["searches"][0].get("params") is None
    assert refined["searches"][0]["params"] == {"hnsw_ef": 200, "quantization": {"rescore": True, "oversampling": 4.0}}
    assert refined["searches"][0]["query"] == {"nearest": "00000000-0000-0000-0000-000000000001"}, "the server reads the vector itself"
    assert facet["exact"] is False


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
async def store(server_url: str, request: pytest.FixtureRequest) -> AsyncIterator[IndexStore]:
    asked = settings(server_url, **request.param)
    made = (TenantStore if asked.collection == "shared" else QdrantStore)(asked, f"test-{uuid.uuid4().hex}")
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
async def test_a_version_of_each_kind_is_built_indexed_and_searched(store: IndexStore) -> None:
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


@pytest.mark.parametrize(
    ("store", "waits"),
    [({}, True), ({"collection": "shared", "catalogues": {"share_below": 0}}, True), ({"collection": "shared"}, False)],
    ids=["own", "large", "shared"],
    indirect=["store"],
)
async def test_a_version_can_be_switched_to_only_when_it_is_indexed(
    store: IndexStore, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[list[Manifest]] = []

    async def indexed(_: Connection, name: str) -> None:
        assert name.endswith(".v1")
        finished.append(await store.versions())

    monkeypatch.setattr(collection, "complete", indexed)
    await store.create(MANIFEST)
    await store.finish(MANIFEST)
    await store.switch("v1")
    assert finished == ([[]] if waits else []), "a shared collection serves others meanwhile, and is indexed as it is written"


EVERY_FIELD = {
    "and": [
        {"kind": ["film"], "genres": {"none": ["Comedy"]}, "language": {"missing": True}, "year": {"missing": True}, "votes": {"gte": 0}},
        {"or": [{"rating": {"lt": 3}}, {"colour": {"all": ["red"]}}, {"new": {"any": [True]}}, {"about": {"match": "word"}}]},
        {"not": {"stock": {"any": [1]}}, "released": {"missing": True}, "place": {"missing": True}},
    ]
}
WHOLE = MANIFEST.model_copy(
    update={
        "attributes": DEFAULT_ATTRIBUTES
        | {
            "colour": Attribute(type="keyword", source="extra.colour", facet=True),
            "stock": Attribute(type="integer", source="numbers.stock"),
            "new": Attribute(type="boolean", source="extra.new"),
            "released": Attribute(type="datetime", source="extra.released"),
            "place": Attribute(type="geo", source=("numbers.lat", "numbers.lon")),
            "about": Attribute(type="text", source="overview"),
        }
    }
)


@pytest.mark.parametrize("store", [{}, {"collection": "shared"}], ids=["own", "shared"], indirect=True)
async def test_strict_mode_refuses_nothing_that_is_asked(store: IndexStore) -> None:
    index = await store.create(WHOLE)
    item = Item(id="1", kind="film", title="Film", genres=("Drama",), numbers={"votes": 3}, extra={"colour": "red"})
    wanted = ItemFilter(**EVERY_FIELD)
    await index.upsert([Point(item.uid("test"), item_payload(item, origin="api", revision=7), {TEXT: VECTORS[1], ITEM: VECTORS[2]})])
    assert await index.count(wanted) == await index.count() == 1
    assert await index.facets("colour", filter=wanted) == [("red", 1)]
    assert await index.max_revision() == 7
    for scroll in (
        Scroll(limit=9, filter=wanted),
        Scroll(limit=9, since=6, origin="api", deleted=True),
        Scroll(limit=9, pending=True),
    ):
        page, _ = await index.scroll(scroll)
        assert len(page) == (not scroll.pending)
    searches = [
        Search(DenseQuery(VECTORS[1]), 3, filter=wanted, exclude=frozenset({str(uuid.UUID(int=1))})),
        Search(HybridQuery(VECTORS[1], Sparse((1,), (1.0,)), prefetch=9), 3, filter=wanted),
        Search(PopularQuery(), 3, filter=wanted, titles=("film",)),
    ]
    assert [len(hits) for hits in await index.search(searches)] == [1, 1, 1]
    await store.finish(WHOLE.model_copy(update={"count": 1}))
    await store.switch(WHOLE.version)
    job, imports = new_job("body", 7), store.imports()
    assert await imports.save(job)
    assert [found.id for found in await imports.jobs()] == [job.id]


async def test_strict_mode_is_what_refuses_a_field_without_an_index(server_url: str) -> None:
    name = f"test-{uuid.uuid4().hex}"
    found = models.Filter(must=[models.FieldCondition(key="nothing", match=models.MatchValue(value=1))])
    for strict in (True, False):
        connection = Connection(settings(server_url, strict=strict))
        await collection.create(connection, name, MANIFEST, query.payload_indexes(MANIFEST))
        if strict:
            with pytest.raises(IndexUnavailableError, match="nothing"):
                await connection(connection.client.count(name, count_filter=found))
        else:
            assert (await connection(connection.client.count(name, count_filter=found))).count == 0
        await connection(connection.client.delete_collection(name))
        await connection.client.close()
