"""The embedded engine with a graph: what it finds, what it loses; filters, and later writes and deletions all the same."""

import asyncio
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.filters import ItemFilter
from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import Index
from matinee.index.types import BM25, TEXT, DenseQuery, Manifest, Point, Search, tombstone
from matinee.settings.index import IndexSettings
from matinee.vectors import Sparse
from tests.waiting import until

COUNT, SIZE, K = 1500, 64, 10
VECTORS = np.random.default_rng(0).standard_normal((COUNT, SIZE)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
MANIFEST = Manifest(version="v1", catalogue="test", fingerprint="f", recipe="raw", dimensions={TEXT: SIZE}, count=COUNT)
QUERIES = np.random.default_rng(1).standard_normal((40, SIZE)).astype(np.float32)


def uid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


def point(number: int, vector: Any = None) -> Point:
    payload = {"revision": number, "deleted": False, "language": ["de", "en"][number % 2]}
    return Point(uid(number), payload, {TEXT: VECTORS[number] if vector is None else vector}, {BM25: Sparse([number % 7], [1.0])})


async def filled(path: Path, **settings: Any) -> EdgeStore:
    """A version with all points, as it is before it is finished."""
    store = EdgeStore(path, "test", IndexSettings(**settings))
    index = await store.create(MANIFEST)
    await index.upsert([point(number) for number in range(COUNT)])
    await index.close()
    return store


async def built(path: Path, **settings: Any) -> Index:
    """The finished version, opened anew."""
    store = await filled(path, **settings)
    await store.finish(MANIFEST)
    return await store.open("v1")


async def found(index: Index, *, exact: bool = False, filter: ItemFilter = ItemFilter()) -> list[list[str]]:
    answers = await index.search([Search(DenseQuery(query), K, filter, exact=exact) for query in QUERIES])
    return [[hit.id for hit in answer] for answer in answers]


def truth(step: int = 1) -> list[list[str]]:
    """The best of every `step`th vector, by NumPy."""
    return [[uid(step * int(row)) for row in np.argsort(-VECTORS[::step] @ query)[:K]] for query in QUERIES]


def overlap(one: list[list[str]], other: list[list[str]]) -> float:
    return float(np.mean([len({*a} & {*b}) / K for a, b in zip(one, other, strict=True)]))


async def test_a_graph_loses_some_and_exact_search_none(tmp_path: Path) -> None:
    index = await built(tmp_path, graph_from=1000, ef=10)
    assert index.approximate
    assert await found(index, exact=True) == truth()
    assert 0.3 < overlap(await found(index), truth()) < 0.95
    await index.close()
    wide = await EdgeStore(tmp_path, "test", IndexSettings(graph_from=1000, ef=COUNT)).open("v1")
    assert overlap(await found(wide), truth()) > 0.99, "ef is how much it looks at"
    await wide.close()


@pytest.mark.parametrize(("quantization", "least"), [("scalar", 0.95), ("binary", 0.5), ("product", 0.5)])
async def test_small_copies_are_searched_and_the_best_ranked_again_by_the_whole_vectors(
    tmp_path: Path, quantization: str, least: float
) -> None:
    index = await built(tmp_path, graph_from=1000, ef=400, quantization=quantization, oversampling=1, on_disk=True, payload="memory")
    assert await found(index, exact=True) == truth(), "exact search reads the whole vectors"
    few = overlap(await found(index), truth())
    await index.close()
    assert (tmp_path / "v1" / "shard").is_dir()
    assert [*(tmp_path / "v1" / "shard").rglob("quantized*")], "the copies are on disk"
    many = await EdgeStore(tmp_path, "test", IndexSettings(graph_from=1000, ef=400, quantization=quantization, oversampling=8)).open("v1")
    more = overlap(await found(many), truth())
    await many.close()
    assert few <= more
    assert more > least


@pytest.mark.parametrize("settings", [{}, {"graph_from": COUNT + 1}])
async def test_a_catalogue_below_the_limit_is_scanned(tmp_path: Path, settings: dict[str, Any]) -> None:
    index = await built(tmp_path, **settings)
    assert not index.approximate
    assert await found(index) == truth()
    await index.close()


async def test_what_a_filter_leaves_is_scanned_below_the_limit(tmp_path: Path) -> None:
    index = await built(tmp_path, graph_from=1000, ef=10)
    assert await found(index, filter=ItemFilter(language=("de",))) == truth(2), "750 of 1,500"
    await index.close()


async def test_writes_and_deletions_after_the_build(tmp_path: Path) -> None:
    index = await built(tmp_path, graph_from=1000)
    query = VECTORS[7]
    await index.upsert([point(COUNT, query) if number == COUNT else point(number) for number in (COUNT, 20)])
    [hits] = await index.search([Search(DenseQuery(query), 2)])
    assert {hit.id for hit in hits} == {uid(7), uid(COUNT)}
    await index.upsert([tombstone(uid(7), revision=COUNT + 1), point(COUNT, -query)])
    [hits] = await index.search([Search(DenseQuery(query), COUNT)])
    assert uid(7) not in {hit.id for hit in hits}
    assert hits[0].id != uid(COUNT)
    assert await index.count() == COUNT
    await index.close()


async def test_the_graph_is_built_beside_the_event_loop(tmp_path: Path) -> None:
    store = await filled(tmp_path, graph_from=1000)
    ticks = 0
    building = asyncio.create_task(store.finish(MANIFEST))
    while not building.done():
        ticks += 1
        await asyncio.sleep(0.001)
    await building
    assert ticks > 10


async def test_a_kill_while_the_graph_is_built_leaves_an_unfinished_version(tmp_path: Path) -> None:
    store = await filled(tmp_path, graph_from=1000)
    building = asyncio.create_task(store.finish(MANIFEST))
    for child in await asyncio.to_thread(until, active_children, "the build has a process of its own"):
        child.kill()
    with pytest.raises(IndexUnavailableError, match="build the version again"):
        await building
    with pytest.raises(IndexAbsentError):
        await store.open("v1")
    await store.finish(MANIFEST)
    index = await store.open("v1")
    assert index.approximate
    assert await found(index, exact=True) == truth()
    await index.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ef": 50}, "set graph_from, or remove ef"),
        ({"engine": "qdrant", "url": "http://q:6333", "graph_from": 1000}, "remove graph_from"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IndexSettings(**given)
