"""`matinee.index.build`: builds on the real encoder and the embedded engine: what is kept, what is refused, and doing it twice is once."""

import gc
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from matinee.errors import IndexUnavailableError
from matinee.index import api_writes, points
from matinee.index.active import ActiveIndex, new_revision
from matinee.index.api_writes import ApiItem, ApiWrites, IndexWrites
from matinee.index.build import Build, Outcome
from matinee.index.edge.index import EdgeIndex
from matinee.index.item_vector import dimensions
from matinee.index.points import Batch, PointMaker
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import TEXT, Point, Scroll
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.settings.index import FactWeights
from matinee.vectors import Matrix
from tests.waiting import until_async


@pytest.fixture(scope="module")
def embedder(local_graph: Any) -> Embedder:
    model: Embedder = local_graph.embedder_replica().slot.model
    return model


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    return list(local_graph.demo_films()[:12])


@pytest.fixture
def maker(embedder: Embedder) -> PointMaker:
    return PointMaker(embedder, "raw")


async def run_build(store: IndexStore, maker: Any, items: Any, api: ApiWrites | None = None, **options: Any) -> Outcome:
    return await Build(store, maker, "demo", "test", api, **options).run(items)


async def stored(store: IndexStore) -> dict[str, Any]:
    """Id -> (payload, vector) of the current version, tombstones included."""
    current = await store.current()
    assert current is not None
    index = await store.open(current.version)
    try:
        page, _ = await index.scroll(Scroll(limit=1000, deleted=True, vectors=True))
    finally:
        await index.close()
    return {hit.id: (hit.payload, hit.vector) for hit in page}


def film(name: str, **facts: Any) -> Item:
    return Item(id=name, kind="film", title=f"Film {name}", overview=f"What happened to {name}.", **facts)


def entry(item: Item, revision: int, *, deleted: bool = False) -> ApiItem:
    return ApiItem(item.uid("demo"), revision, None if deleted else item)


class Writes:
    """API writes that become visible read by read."""

    def __init__(self, *rounds: Sequence[ApiItem]) -> None:
        self._rounds = list(rounds)
        self._visible: dict[str, ApiItem] = {}

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        if self._rounds:
            self._visible |= {entry.id: entry for entry in self._rounds.pop(0)}
        yield [entry for entry in self._visible.values() if entry.revision > since]


async def test_a_build_is_complete_verified_and_current(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    outcome = await run_build(store, maker, films)
    assert outcome.manifest == await store.current()
    assert outcome.previous is None
    assert outcome.counts == {"file": 12, "api": 0, "tombstones": 0, "shadowed": 0, "discarded": 0}
    manifest = outcome.manifest
    assert (manifest.count, manifest.recipe, manifest.source, manifest.revision) == (12, "raw", "test", 0)
    assert (manifest.fingerprint, manifest.dimensions) == (maker.embedder.fingerprint, dimensions(384, FactWeights()))
    assert set(await stored(store)) == {item.uid("demo") for item in films}


async def test_a_second_build_of_the_same_file_is_the_same_index(
    store: IndexStore, maker: PointMaker, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await run_build(store, maker, films)
    before = await stored(store)
    monkeypatch.setattr(points, "BATCH", 5)
    second = await run_build(store, maker, reversed(films))
    after = await stored(store)
    assert second.previous == first.manifest
    assert second.counts == first.counts
    assert {id: payload for id, (payload, _) in after.items()} == {id: payload for id, (payload, _) in before.items()}
    for id, (_, vector) in before.items():
        assert after[id][1] == pytest.approx(vector, abs=1e-5)


async def test_what_the_api_wrote_survives_and_wins_over_the_file(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    changed = films[1].model_copy(update={"title": "Changed by hand"})
    api = Writes([entry(film("new"), 10), entry(changed, 20), entry(films[2], 30, deleted=True), entry(film("never"), 40, deleted=True)])
    outcome = await run_build(store, maker, films, api)
    assert outcome.counts == {"file": 10, "api": 2, "tombstones": 2, "shadowed": 2, "discarded": 0}
    assert outcome.manifest.count == 12
    found = await stored(store)
    payload, vector = found[changed.uid("demo")]
    assert (payload["title"], payload["origin"], payload["revision"], vector is not None) == ("Changed by hand", "api", 20, True)
    assert found[films[2].uid("demo")] == ({"origin": "api", "revision": 30, "deleted": True}, None)
    again = await run_build(store, maker, films, await current_writes(store))
    assert again.counts == outcome.counts
    assert (await stored(store)).keys() == found.keys()


async def test_the_writes_of_the_api_are_held_a_page_at_a_time(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    held: list[weakref.ref[Item]] = []
    most = 0

    class Paged:
        async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
            nonlocal most
            for page in range(6):
                entries = [entry(film(f"{page}-{number}"), 10 * page + number + 1) for number in range(4)]
                held.extend(weakref.ref(one.item) for one in entries if one.item is not None)
                gc.collect()
                most = max(most, sum(one() is not None for one in held))
                yield [one for one in entries if one.revision > since]

    outcome = await run_build(store, maker, films[:2], Paged())
    assert outcome.counts["api"] == 24
    assert most <= 8, "the page that was read, and the one before it"


async def all_of(writes: ApiWrites, since: int) -> list[ApiItem]:
    return [entry async for page in writes.read(since) for entry in page]


async def current_writes(store: IndexStore) -> ApiWrites:
    """The writes of the current version, read before it is built upon."""
    current = await store.current()
    assert current is not None
    index = await store.open(current.version)
    try:
        return Writes(await all_of(IndexWrites(index), 0))
    finally:
        await index.close()


async def test_replace_discards_what_the_api_wrote_and_counts_it(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    written = [entry(film("a"), 10), entry(film("b"), 20), entry(films[0], 30, deleted=True)]
    await run_build(store, maker, films, Writes(written))
    start = new_revision()
    outcome = await run_build(store, maker, films, Writes(written, [entry(film("late"), start)]), replace=True)
    assert outcome.counts == {"file": 12, "api": 0, "tombstones": 0, "shadowed": 0, "discarded": 2}
    assert set(await stored(store)) == {item.uid("demo") for item in films}
    # By the writes themselves: this machine's clock may be ahead of those that come now.
    assert outcome.manifest.revision == 30


async def test_writes_that_come_during_the_build_are_in_it(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    now = new_revision()
    late = [entry(film("late"), now), entry(films[3], now + 1, deleted=True), entry(films[4].model_copy(update={"title": "New"}), now + 2)]
    outcome = await run_build(store, maker, films, Writes([entry(film("early"), 5)], late, [entry(film("later"), now + 3)]))
    found = await stored(store)
    assert film("early").uid("demo") in found
    assert found[film("late").uid("demo")][1] is not None
    assert found[film("later").uid("demo")][1] is not None
    assert found[films[3].uid("demo")][0]["deleted"] is True
    assert found[films[4].uid("demo")][0]["title"] == "New"
    assert (outcome.counts["api"], outcome.counts["tombstones"]) == (4, 1)
    assert outcome.manifest.count == 14


async def test_an_older_revision_that_arrives_late_is_not_lost(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    now = new_revision()
    outcome = await run_build(store, maker, films, Writes([entry(film("fast"), now)], [entry(film("slow"), now - 1000)]))
    assert film("slow").uid("demo") in await stored(store)
    assert outcome.manifest.revision < now - 1000


class Counting(PointMaker):
    """Counts what it has begun to encode."""

    begun = 0

    def encode(self, batch: Batch) -> Matrix:
        self.begun += 1
        return super().encode(batch)


async def test_a_batch_is_written_while_the_next_one_is_encoded(
    store: IndexStore, embedder: Embedder, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matinee.index.points.BATCH", 5)
    maker, seen = Counting(embedder, "raw"), list[int]()

    async def upsert(index: EdgeIndex, points: Sequence[Point]) -> None:
        await until_async(lambda: maker.begun > len(seen) + 1 or maker.begun == 3, "the next batch is encoded")
        seen.append(maker.begun)
        await written(index, points)

    written = EdgeIndex.upsert
    monkeypatch.setattr(EdgeIndex, "upsert", upsert)
    outcome = await run_build(store, maker, films)
    assert (seen, outcome.manifest.count, outcome.counts["file"]) == ([2, 3, 3], 12, 12)


async def test_a_write_that_fails_waits_for_the_encoder_and_leaves_all_as_it_was(
    store: IndexStore, embedder: Embedder, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matinee.index.points.BATCH", 5)
    finished: list[int] = []

    class Slow(Counting):
        def encode(self, batch: Batch) -> Matrix:
            vectors = super().encode(batch)
            finished.append(self.begun)
            return vectors

    async def upsert(index: EdgeIndex, points: Sequence[Point]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EdgeIndex, "upsert", upsert)
    with pytest.raises(OSError, match="No space left"):
        await run_build(store, Slow(embedder, "raw"), films)
    assert finished == [1, 2]
    assert await store.current() is None


class Broken(PointMaker):
    """Makes points whose vectors went wrong."""

    def __init__(self, maker: PointMaker, dense: dict[str, Any]) -> None:
        super().__init__(maker.embedder, maker.recipe)
        self._dense = dense

    def points(self, *args: Any, **options: Any) -> list[Point]:
        return [replace(point, dense=self._dense) for point in super().points(*args, **options)]


@pytest.mark.parametrize("dense", [{}, {TEXT: np.zeros(384, np.float32)}], ids=["missing", "zero"])
async def test_a_version_with_broken_vectors_is_never_switched_to(
    store: IndexStore, maker: PointMaker, films: list[Item], dense: dict[str, Any]
) -> None:
    before = (await run_build(store, maker, films)).manifest
    with pytest.raises(IndexUnavailableError, match="it was not made current"):
        await run_build(store, Broken(maker, dense), films)
    assert await store.current() == before
    assert await store.versions() == [before]


async def test_a_source_that_breaks_leaves_everything_as_it_was(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    def broken() -> Iterator[Item]:
        yield from films[:5]
        raise RuntimeError("the file is cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        await run_build(store, maker, broken())
    assert await store.current() is None
    await run_build(store, maker, films)
    await store.prune(2)
    assert len(await store.versions()) == 1


async def test_progress_tells_every_item(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    told: list[tuple[str, int]] = []
    await run_build(store, maker, films, Writes([entry(film("a"), 1)]), progress=lambda *step: told.append(step))
    assert told == [("items", 12), ("api items", 1), ("finishing", 0)]


@pytest.mark.parametrize("recipe", ["enhanced", "both"])
async def test_recipes_embed_the_description_and_store_it(store: IndexStore, embedder: Embedder, films: list[Item], recipe: Any) -> None:
    asked: list[str] = []

    def describe(items: Sequence[Item]) -> list[str | None]:
        asked.extend(item.title for item in items)
        return [None if i == 0 else f"{item.title} is about an octopus." for i, item in enumerate(items)]

    await run_build(store, PointMaker(embedder, recipe, describe=describe), films)
    found = await stored(store)
    assert asked == [item.title for item in films]
    [octopus] = embedder.encode(["an octopus"])
    [raw, described] = [found[item.uid("demo")] for item in films[:2]]
    assert (raw[0]["enriched"], "description" in raw[0]) == (False, False)
    assert (described[0]["enriched"], described[0]["description"]) == (True, f"{films[1].title} is about an octopus.")
    assert octopus @ described[1] > octopus @ raw[1]


async def test_writes_are_read_from_an_open_index_page_by_page(
    store: IndexStore, maker: PointMaker, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [entry(film(str(i)), 10 + i, deleted=i % 3 == 0) for i in range(9)]
    await run_build(store, maker, films, Writes(written))
    active = ActiveIndex(store)
    await active.refresh()
    index: Index = active.get()
    monkeypatch.setattr(api_writes, "_PAGE", 2)
    assert sorted(await all_of(IndexWrites(index), 0), key=lambda e: e.revision) == written
    assert sorted(await all_of(IndexWrites(index), 14), key=lambda e: e.revision) == written[5:]
    await active.close()
