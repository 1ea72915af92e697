"""One ingest at a time, on every engine: who is refused, what a killed ingest leaves, and what one does that was taken for dead."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from matinee.errors import IndexLockedError
from matinee.index.api_writes import ApiItem
from matinee.index.build import Build
from matinee.index.edge.store import EdgeStore
from matinee.index.lease import hold_lease
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.index.qdrant.lease import LeaseCollection
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import TEXT, Manifest
from matinee.items import Item
from matinee.settings.index import IndexSettings
from tests.waiting import HANG_S

EXPIRY_S = 0.6
FILMS = [Item(id=str(n), kind="film", title=f"Film {n}", overview=f"What happened to number {n}.") for n in range(5)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease expires within a second here."""
    monkeypatch.setattr("matinee.index.qdrant.server_store.hold_lease", partial(hold_lease, expiry_s=EXPIRY_S))


class Encoder:
    """Each text its own vector; `gate` holds it up."""

    fingerprint, dimension, model_id = "f" * 64, 16, "test"

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    def encode(self, texts: Any, *, kind: Any) -> Any:
        self.begun.set()
        assert self.gate.wait(HANG_S)
        vectors = np.stack([np.random.default_rng(sum(text.encode())).standard_normal(16) for text in texts]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(store: IndexStore, encoder: Encoder | None = None) -> Build:
    if encoder is None:
        encoder = Encoder()
        encoder.gate.set()
    return Build(store, PointMaker(encoder, "raw"), "test", "test", keep=2)


async def test_a_second_ingest_is_refused_and_removes_nothing(any_store: IndexStore) -> None:
    encoder = Encoder()
    async with any_store.lease() as held:
        # The first one is in the middle of its build.
        await held()
        unfinished = Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4})
        index = await any_store.create(unfinished)
        with pytest.raises(IndexLockedError, match="another ingest of the catalogue 'test' is under way"):
            await build(any_store, encoder).run(FILMS)
        assert await index.count() == 0
        await index.close()
        await held()
        await any_store.finish(unfinished)
    assert not encoder.begun.is_set()
    outcome = await build(any_store).run(FILMS)
    assert await any_store.current() == outcome.manifest
    again = await build(any_store).run(FILMS)
    assert await any_store.current() == again.manifest


@pytest.fixture
async def server() -> Any:
    store = QdrantStore(IndexSettings(), "test", client=AsyncQdrantClient(":memory:"))
    yield store
    await store._client.close()


async def test_what_a_killed_ingest_leaves_is_taken_over_once_it_has_expired(server: QdrantStore) -> None:
    killed = LeaseCollection(server._call, server._lease)
    assert await killed.create({"id": "killed", "holder": "nobody", "renewed": 7})
    async with server.lease() as held:
        await held()
        assert await server.versions() == [], "the lease is no version"
    assert await killed.read() is None


async def steal(store: QdrantStore) -> None:
    """Take the lease over from whoever holds it."""
    record = LeaseCollection(store._call, store._lease)
    await record.remove(str((await record.read() or {})["id"]))
    assert await record.create({"id": "other", "holder": "somebody", "renewed": 0})


async def test_of_two_who_wait_for_a_killed_ingest_one_gets_its_lease(server: QdrantStore) -> None:
    """The slower one has found the same lease expired, and removes it when the quicker one has made its own."""
    assert await LeaseCollection(server._call, server._lease).create({"id": "killed", "holder": "nobody", "renewed": 7})
    expired, quicker_holds = asyncio.Event(), asyncio.Event()

    class Slower(LeaseCollection):
        async def remove(self, *args: str) -> None:
            expired.set()
            await quicker_holds.wait()
            await super().remove(*args)

    async def slower() -> None:
        async with hold_lease(Slower(server._call, server._lease), "test", expiry_s=EXPIRY_S):
            pytest.fail("both hold it")

    waiting = asyncio.create_task(slower())
    await asyncio.sleep(0)
    async with server.lease() as held:
        await expired.wait()
        quicker_holds.set()
        with pytest.raises(IndexLockedError, match="another ingest of the catalogue 'test' is under way"):
            await waiting
        await held()


async def test_who_lost_the_lease_after_its_switch_prunes_nothing(server: QdrantStore) -> None:
    manifest = Manifest(version="v0", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 16})

    class Stolen(QdrantStore):
        """Another ingest takes the lease when this one has switched, and begins its build."""

        async def switch(self, version: str) -> None:
            await super().switch(version)
            await steal(self)
            await self.create(manifest)

    stolen = Stolen(IndexSettings(), "test", client=server._client)
    outcome = await build(stolen).run(FILMS)
    assert await server.current() == outcome.manifest
    await server.finish(manifest)
    assert manifest in await server.versions()


async def test_who_was_taken_for_dead_does_not_switch(server: QdrantStore) -> None:
    first = await build(server).run(FILMS)

    class Stolen(QdrantStore):
        """Another ingest takes the lease while this one finishes its version."""

        async def finish(self, manifest: Manifest) -> None:
            await super().finish(manifest)
            await steal(self)

    stolen = Stolen(IndexSettings(), "test", client=server._client)
    with pytest.raises(IndexLockedError, match="somebody, which took over"):
        await build(stolen).run(FILMS)
    assert await server.current() == first.manifest
    # The other one's lease is left alone.
    found = await LeaseCollection(server._call, server._lease).read()
    assert found is not None
    assert found["id"] == "other"


async def test_the_lease_is_renewed_while_items_are_described(server: QdrantStore) -> None:
    """A model takes minutes for the items of one batch. What the API wrote is described too."""
    record, encoder = LeaseCollection(server._call, server._lease), Encoder()
    encoder.gate.set()
    loop, described = asyncio.get_running_loop(), []

    async def renewed_again() -> None:
        first = await record.read()
        while await record.read() == first:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)

    def describe(items: Any) -> list[str]:
        asyncio.run_coroutine_threadsafe(renewed_again(), loop).result(HANG_S)
        described.extend(item.title for item in items)
        return ["A description."] * len(items)

    class Written:
        async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
            yield [] if since else [ApiItem("00000000-0000-0000-0000-000000000001", 1, FILMS[0])]

    maker = PointMaker(encoder, "both", describe=describe)
    await Build(server, maker, "test", "test", api=Written()).run(FILMS[1:])
    assert sorted(described) == sorted(film.title for film in FILMS)


async def test_the_lease_is_renewed_while_it_is_held(server: QdrantStore) -> None:
    record = LeaseCollection(server._call, server._lease)
    async with server.lease():
        first = await record.read()
        async with asyncio.timeout(HANG_S):
            while await record.read() == first:  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0.01)


def test_two_switches_at_once_lose_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks are read and written again as a whole: without a lock the slower one forgot the other."""
    slow, quick = EdgeStore(tmp_path, "test"), EdgeStore(tmp_path, "test")
    for version in ("v1", "v2", "v3"):
        (tmp_path / version / "shard").mkdir(parents=True)
        manifest = Manifest(version=version, catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4})
        asyncio.run(slow.finish(manifest))
    asyncio.run(slow.switch("v1"))
    read, go_on = threading.Event(), threading.Event()
    marks = slow._marks

    def held_up() -> dict[str, str]:
        found = marks()
        read.set()
        assert go_on.wait(HANG_S)
        return found

    monkeypatch.setattr(slow, "_marks", held_up)
    threads = [threading.Thread(target=lambda: asyncio.run(slow.switch("v2")))]
    threads[0].start()
    assert read.wait(HANG_S)
    threads.append(threading.Thread(target=lambda: asyncio.run(quick.switch("v3"))))
    threads[1].start()
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(HANG_S)
    assert quick._marks() == {"current": "v3", "previous": "v2"}


class Gated(Encoder):
    """Held up at the third batch."""

    batches = 0

    def encode(self, texts: Any, *, kind: Any) -> Any:
        self.batches += 1
        if self.batches < 3:
            self.gate.set()
        elif self.batches == 3:
            self.gate.clear()
        return super().encode(texts, kind=kind)


async def test_a_build_notes_how_far_it_is_as_long_as_it_runs(any_store: IndexStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.index.points.BATCH", 2)
    for name in ("NOTE_S", "_FIRST_S"):
        monkeypatch.setattr(f"matinee.index.build.{name}", 0.01)
    encoder = Gated()
    assert await any_store.build_progress() is None
    building = asyncio.create_task(Build(any_store, PointMaker(encoder, "raw"), "test", "films.csv", total=len(FILMS)).run(FILMS))
    try:
        async with asyncio.timeout(HANG_S):
            while (noted := await any_store.build_progress()) is None or noted.items < 4:
                assert not building.done()
                await asyncio.sleep(0.01)
    finally:
        encoder.gate.set()
    done = (await building).manifest
    assert (noted.version, noted.source, noted.started, noted.stage, noted.items, noted.total) == (
        done.version,
        "films.csv",
        done.created,
        "items",
        4,
        5,
    )
    state = noted.model_copy(update={"spent_s": 2.0}).state()
    assert (state.rate, state.left_s) == (2.0, 0.5)
    assert noted.model_copy(update={"stage": "finishing"}).state().left_s is None
    assert await any_store.build_progress() is None
    async with any_store.lease():
        assert await any_store.build_progress() is None, "the note of another build"
        await any_store.note_build(noted)
        assert await any_store.build_progress() == noted
    assert await any_store.build_progress() is None
