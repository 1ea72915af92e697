"""Writes, patches, imports and deletes, in any order with builds, other attributes, switches, rollbacks and kills, on every engine.

Nothing that was written is lost, and nothing that was deleted comes back, whatever the index goes through.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from matinee.errors import FingerprintError, IndexAbsentError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index import api_writes
from matinee.index.active import ActiveIndex
from matinee.index.api_writes import ApiItem, IndexWrites
from matinee.index.build import Build
from matinee.index.edge.store import EdgeStore
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.index.qdrant.store import QdrantStore
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.redeclare import redeclare
from matinee.index.types import ITEM, TEXT, Point, Scroll, item_payload
from matinee.items import Item
from matinee.settings.index import IndexSettings

IDS = [f"item-{n}" for n in range(4)]
Store = Callable[[], IndexStore]


class Encoder:
    """A vector of each text, of which every two differ; another name makes other ones."""

    dimension = 16

    def __init__(self, name: str) -> None:
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.model_id = name

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        seeds = [int.from_bytes(hashlib.sha256(f"{self.model_id}{text}".encode()).digest()[:8], "big") for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=self.dimension) for seed in seeds], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


MAKERS = [PointMaker(Encoder(name), "raw") for name in ("one", "two")]


class KilledError(Exception):
    """The process died here."""


@dataclass
class Truth:
    """What must be there: the title that the last write of an item gave it, None for a delete; and when that was asked for."""

    api: dict[str, tuple[int, str | None, int]] = field(default_factory=dict)
    files: dict[str, set[str]] = field(default_factory=dict)
    clock: int = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def wrote(self, id: str, title: str | None, asked: int | None = None, votes: int = 0) -> None:
        self.api[id] = (self.tick() if asked is None else asked, title, votes)


class World:
    """A catalogue that goes through steps, and what is true of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.store = store()
        self.active = ActiveIndex(self.store)
        self.truth = Truth()
        self.builds = 0
        self.imports: list[tuple[int, int, str, str]] = []

    async def put(self, id: str, encoder: int) -> None:
        title = f"Put {self.truth.tick()}"
        maker = MAKERS[encoder]
        points = maker([Item(id=id, title=title)], [uid(id)], origin="api", revisions=[0])
        try:
            await self.active.upsert(points, fingerprint=maker.embedder.fingerprint, recipe="raw")
        except (FingerprintError, IndexAbsentError):
            return
        self.truth.wrote(id, title)

    async def patch(self, id: str) -> None:
        """Another number of votes: the title and what was made of it stay."""
        if self.active.manifest is None:
            return
        index = self.active.get()
        [before] = await index.points([uid(id)]) or [None]
        if before is None or before.payload.get("deleted"):
            return
        votes = self.truth.tick()
        item = Item.model_validate(before.payload["item"]).apply_patch({"numbers": {"votes": float(votes)}})
        point = Point(uid(id), item_payload(item, origin="api", revision=0), {}, before.sparse)
        written = await self.active.change([point], expected={uid(id): before.payload["revision"]})
        assert written.count == 1
        [after] = await index.points([uid(id)])
        assert (TEXT in after.dense) == (TEXT in before.dense)
        if TEXT in before.dense:
            assert after.dense[TEXT] == pytest.approx(before.dense[TEXT], abs=1e-6)
            assert not np.allclose(after.dense[ITEM], before.dense[ITEM], atol=1e-4)
        self.truth.wrote(id, item.title, votes=votes)

    async def stale_patch(self, id: str) -> None:
        if self.active.manifest is None:
            return
        point = Point(uid(id), item_payload(Item(id=id, title="Stale"), origin="api", revision=0))
        assert (await self.active.change([point], expected={uid(id): 5})).count == 0

    async def delete(self, id: str) -> None:
        if self.active.manifest is None:
            return
        if await self.active.delete(uid(id)) is not None:
            self.truth.wrote(id, None)

    async def ask_import(self, id: str) -> None:
        if self.active.manifest is not None:
            now = self.truth.tick()
            self.imports.append((await self.active.stamp(), now, id, f"Import {now}"))

    async def work_import(self, encoder: int) -> None:
        if not self.imports:
            return
        stamp, asked, id, title = self.imports.pop(0)
        maker = MAKERS[encoder]
        points = maker([Item(id=id, title=title)], [uid(id)], origin="api", revisions=[0])
        try:
            written = await self.active.upsert(points, fingerprint=maker.embedder.fingerprint, recipe="raw", asked=stamp)
        except FingerprintError:
            self.imports.insert(0, (stamp, asked, id, title))
            return
        newer = self.truth.api.get(id, (0, None, 0))[0] > asked
        assert written.count == (0 if newer else 1)
        if not newer:
            self.truth.wrote(id, title, asked)

    async def build(self, encoder: int, ids: list[str], steps: list[Any], killed: bool) -> None:
        """A build; `steps` are gone through behind its reads of what the API wrote. The active index follows later.

        It has followed the one before: that takes it a second, and `prune` keeps two versions.
        """
        await self.follow()
        self.builds += 1
        files = {id: f"File {self.builds} {id}" for id in ids}

        def items() -> Iterator[Item]:
            for id, title in files.items():
                yield Item(id=id, title=title)
            if killed:
                raise KilledError

        api = None if self.active.manifest is None else Interleaved(self, IndexWrites(self.active.get()), list(steps))
        try:
            outcome = await Build(self.store, MAKERS[encoder], "demo", "test", api, keep=2).run(items())
        except KilledError:
            return
        self.truth.files[outcome.manifest.version] = set(ids)

    async def redeclare(self, name: str, steps: list[Any]) -> None:
        """Other attributes: a copy of the current version, while `steps` are gone through."""
        await self.follow()
        if self.active.manifest is None:
            return
        before = self.active.manifest.version

        async def meanwhile() -> None:
            for step in steps:
                await self.step(*step)

        declared = DEFAULT_ATTRIBUTES | {name: Attribute(type="float", source="numbers.votes")}
        manifest = await redeclare(self.store, self.active.get(), declared, keep=2, before_switch=meanwhile)
        self.truth.files[manifest.version] = self.truth.files[before]

    async def follow(self) -> None:
        await self.active.refresh(recover=self.active.manifest is None)

    async def rollback(self) -> None:
        try:
            await self.store.rollback()
        except IndexAbsentError:
            return

    async def kill(self) -> None:
        await self.active.close()
        self.store = self._store()
        self.active = ActiveIndex(self.store)
        await self.follow()

    async def step(self, name: str, arguments: tuple[Any, ...]) -> None:
        await getattr(self, name)(*arguments)

    async def check(self) -> None:
        await self.follow()
        if self.active.manifest is None:
            assert not self.truth.api
            return
        index = self.active.get()
        page, _ = await index.scroll(Scroll(limit=100, deleted=True))
        api = {id: (title, votes) for id, (_, title, votes) in self.truth.api.items()}
        found = {hit.payload["item"]["id"]: hit.payload for hit in page if not hit.payload.get("deleted")}
        assert {id: payload["title"] for id, payload in found.items() if payload["origin"] == "api"} == {
            id: title for id, (title, _) in api.items() if title is not None
        }
        for id, (title, votes) in api.items():
            if title is not None:
                assert found[id]["item"].get("numbers", {}).get("votes", 0) == votes
        for name in index.manifest.declared.keys() - DEFAULT_ATTRIBUTES.keys():
            for id, payload in found.items():
                votes = payload["item"].get("numbers", {}).get("votes")
                assert payload.get("attributes", {}) == ({} if votes is None else {name: votes}), id
        from_file = {id for id, payload in found.items() if payload["origin"] == "file"}
        assert from_file == self.truth.files[index.manifest.version] - set(api)


class Interleaved:
    """What the API wrote, as a build reads it; steps come in behind each read."""

    def __init__(self, world: World, writes: IndexWrites, steps: list[Any]) -> None:
        self._world = world
        self._writes = writes
        self._steps = steps

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        async for page in self._writes.read(since):
            yield page
        if self._steps:
            await self._world.step(*self._steps.pop(0))


def uid(id: str) -> str:
    return Item(id=id, title="x").uid("demo")


ids, encoders = st.sampled_from(IDS), st.sampled_from([0, 0, 0, 1])
WRITES = st.one_of(
    st.tuples(st.just("put"), st.tuples(ids, encoders)),
    st.tuples(st.just("patch"), st.tuples(ids)),
    st.tuples(st.just("stale_patch"), st.tuples(ids)),
    st.tuples(st.just("delete"), st.tuples(ids)),
    st.tuples(st.just("ask_import"), st.tuples(ids)),
    st.tuples(st.just("work_import"), st.tuples(encoders)),
)
BUILDS = st.tuples(
    st.just("build"),
    st.tuples(encoders, st.lists(ids, unique=True, min_size=1), st.lists(WRITES, max_size=3), st.sampled_from([False, False, True])),
)
COPIES = st.tuples(st.just("redeclare"), st.tuples(st.sampled_from(["liked", "popular"]), st.lists(WRITES, max_size=3)))
STEPS = st.one_of(
    WRITES, WRITES, WRITES, BUILDS, COPIES, *(st.tuples(st.just(name), st.just(())) for name in ("follow", "rollback", "kill", "check"))
)
FIRST = ("build", (0, IDS[:3], [], False))


def world_of(name: str, arguments: tuple[Any, ...]) -> int:
    """A number that a step always has."""
    return len(name) + len(repr(arguments))


def run(engine: str, steps: list[Any]) -> None:
    async def go(store: Store) -> None:
        world = World(store)
        try:
            for name, arguments in [FIRST, ("follow", ()), *steps, ("check", ()), ("kill", ()), ("check", ())]:
                await world.step(name, arguments)
        finally:
            await world.active.close()

    async def on_qdrant() -> None:
        client = AsyncQdrantClient(":memory:")
        await go(lambda: QdrantStore(IndexSettings(), "demo", client=client))
        await client.close()

    async def beside_another() -> None:
        """Two catalogues in one collection, whose points would have the same ids: what one goes through is nothing to the other."""
        client = AsyncQdrantClient(":memory:")
        worlds = [World(lambda name=name: TenantStore(IndexSettings(), name, client=client)) for name in ("demo", "other")]  # type: ignore[misc]
        try:
            for name, arguments in [FIRST, ("follow", ()), *steps, ("check", ()), ("kill", ()), ("check", ())]:
                # The other one goes the same way by halves, and is checked each time.
                for world in worlds[: 1 + (world_of(name, arguments) % 2)]:
                    await world.step(name, arguments)
                await worlds[1].check()
            collections = [
                entry.name for entry in (await client.get_collections()).collections if entry.name.startswith("_matinee_shared.")
            ]
            assert len(collections) <= len(MAKERS)
        finally:
            for world in worlds:
                await world.active.close()
            await client.close()

    if engine == "tenant":
        asyncio.run(beside_another())
    elif engine == "edge":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(go(lambda: EdgeStore(Path(folder), "demo")))
    else:
        asyncio.run(on_qdrant())


@pytest.mark.parametrize(
    ("engine", "examples"),
    [
        ("edge", 4),
        ("memory", 30),
        ("tenant", 25),
        pytest.param("edge", 60, marks=pytest.mark.full),
        pytest.param("memory", 600, marks=pytest.mark.full),
        pytest.param("tenant", 300, marks=pytest.mark.full),
    ],
)
def test_nothing_written_is_lost_and_nothing_deleted_comes_back(engine: str, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # One writer, whose revisions come in order: without the overlap, each part has to be right by itself.
    monkeypatch.setattr(api_writes, "_OVERLAP", 0)

    @hypothesis.settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.lists(STEPS, max_size=14))
    def check(steps: list[Any]) -> None:
        run(engine, steps)

    check()


@pytest.mark.parametrize("kind", [QdrantStore, TenantStore])
async def test_a_version_before_that_was_deleted_holds_up_no_write(kind: Any) -> None:
    """In a roll-over, writes go to the version of the encoder before as well; builds that nobody has followed yet may prune it."""
    client = AsyncQdrantClient(":memory:")
    store = kind(IndexSettings(), "demo", client=client)
    active = ActiveIndex(store)
    for maker in MAKERS:
        await Build(store, maker, "demo", "test", keep=2).run([Item(id="item-0", title="File")])
        await active.refresh()
    assert active.before is not None
    await Build(store, MAKERS[1], "demo", "test", IndexWrites(active.get()), keep=2).run([Item(id="item-0", title="File")])
    points = MAKERS[1]([Item(id="item-1", title="Put")], [uid("item-1")], origin="api", revisions=[0])
    assert (await active.upsert(points, fingerprint=MAKERS[1].embedder.fingerprint, recipe="raw")).count == 1
    await active.refresh()
    assert await active.get().count() == 2
    await active.close()
    await store.destroy()
    left = [entry.name for entry in (await client.get_collections()).collections if not entry.name.startswith("_matinee_catalogues")]
    assert [(await client.count(name)).count for name in left] == [0] * len(left)
    await client.close()


async def test_a_version_that_was_deleted_under_the_live_index_is_left_behind() -> None:
    """Two builds end before the active index follows, and prune the version that it has open: a Qdrant server knows of no open ones."""
    client = AsyncQdrantClient(":memory:")
    store = QdrantStore(IndexSettings(), "demo", client=client)
    active = ActiveIndex(store)
    for n in range(4):
        outcome = await Build(store, MAKERS[0], "demo", "test", keep=2).run([Item(id="item-0", title=f"Build {n}")])
        if n == 0:
            await active.refresh()
    assert await active.refresh() is True
    assert active.manifest is not None
    assert active.manifest.version == outcome.manifest.version
    [hit] = await active.get().retrieve([uid("item-0")])
    assert hit is not None
    assert hit.payload["title"] == "Build 3"
    await active.close()
    await client.close()
