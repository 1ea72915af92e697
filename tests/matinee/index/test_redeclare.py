"""Other attributes without the encoder, on each engine: the items, their vectors and tombstones stay, and the version before too."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from matinee.errors import CatalogueConflictError, IndexLockedError, UnknownAttributeError
from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.active import ActiveIndex
from matinee.index.build import Build, new_manifest
from matinee.index.edge.store import EdgeStore
from matinee.index.lease import EXPIRY_S, BuildWatch
from matinee.index.protocols import IndexStore
from matinee.index.redeclare import redeclare
from matinee.index.registry import CatalogueChanges, CatalogueRecord, SearchChanges
from matinee.index.types import Scroll
from matinee.items import Item
from matinee.settings.index import FactWeights
from tests.matinee.index.test_interleavings import MAKERS

PAGES = {"pages": Attribute(type="integer", source="numbers.pages")}
BOOKS = [Item(id=f"b{n}", title=f"Book {n}", numbers={"pages": 100.0 * n}, extra={"shelf": f"s{n % 2}"}) for n in range(5)]


async def nothing() -> None:
    """Nobody keeps a record of the catalogue."""


async def opened(store: IndexStore) -> ActiveIndex:
    await Build(store, MAKERS[0], "test", "test").run(BOOKS)
    active = ActiveIndex(store)
    await active.refresh()
    return active


async def change(store: IndexStore, active: ActiveIndex, attributes: Any, note: Callable[[], Awaitable[None]] = nothing) -> None:
    await redeclare(store, active.get(), attributes, keep=2, before_switch=note)
    await active.refresh()


async def test_an_attribute_that_is_added_filters_what_was_there_and_what_comes(any_store: IndexStore) -> None:
    active = await opened(any_store)
    before = {point.id: point for point in await active.get().points([book.uid("test") for book in BOOKS])}
    gone, changed = BOOKS[0].uid("test"), BOOKS[1].apply_patch({"numbers": {"pages": 900}})

    async def meanwhile() -> None:
        """What is written while the copy is made is in it in the end."""
        await active.delete(gone)
        points = MAKERS[0]([changed], [changed.uid("test")], origin="api", revisions=[0])
        await active.upsert(points, fingerprint=MAKERS[0].embedder.fingerprint, recipe="raw")

    await change(any_store, active, DEFAULT_ATTRIBUTES | PAGES, meanwhile)
    index = active.get()
    assert await index.count() == 4
    assert await index.count(ItemFilter(pages={"gte": 400})) == 2
    page, _ = await index.scroll(Scroll(limit=9, deleted=True, vectors=True))
    assert {hit.id for hit in page} == before.keys()
    for hit in page:
        if hit.id in (gone, changed.uid("test")):
            continue
        assert hit.payload["origin"] == "file"
        assert hit.vector is not None
        assert np.allclose(hit.vector, before[hit.id].dense["text"], atol=1e-6)
    # Another type, and the way back.
    await change(any_store, active, DEFAULT_ATTRIBUTES | {"pages": Attribute(type="keyword", source="extra.shelf", facet=True)})
    assert dict(await active.get().facets("pages")) == {"s0": 2, "s1": 2}
    await any_store.rollback()
    await active.refresh()
    assert await active.get().count(ItemFilter(pages={"gte": 400})) == 2
    # One that is open can't be removed on the embedded engine; the next prune does it.
    assert len(await any_store.versions()) == (3 if isinstance(any_store, EdgeStore) else 2)
    await active.close()


async def test_while_something_builds_or_has_replaced_the_index_nothing_is_changed(any_store: IndexStore) -> None:
    active = await opened(any_store)
    if isinstance(any_store, EdgeStore):
        async with any_store.lease():
            with pytest.raises(IndexLockedError):
                await change(any_store, active, PAGES)
    await Build(any_store, MAKERS[0], "test", "test").run(BOOKS[:2])
    with pytest.raises(CatalogueConflictError, match="just been replaced"):
        await change(any_store, active, PAGES)
    current = await any_store.current()
    assert current is not None
    assert current.count == 2
    await active.close()


async def test_a_copy_that_fails_leaves_everything_as_it_was(any_store: IndexStore) -> None:
    active = await opened(any_store)
    version = active.get().manifest.version

    async def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match=r"No space left|disk is full"):
        await change(any_store, active, PAGES, full)
    current = await any_store.current()
    assert current is not None
    assert current.version == version
    assert await active.get().count() == 5
    await change(any_store, active, PAGES)
    assert [*active.get().manifest.declared] == ["pages"]
    await active.close()


async def test_a_build_shows_its_lease_and_a_crashed_one_is_forgotten(any_store: IndexStore) -> None:
    manifest = new_manifest("test", "f" * 64, 4, "raw", FactWeights(), "test", None)
    assert await any_store.lease_mark() is None
    async with any_store.lease():
        assert await any_store.lease_mark() is not None
        looks = [any_store.lease_mark() for _ in range(5)]
        assert None not in await asyncio.gather(*looks)
    assert await any_store.lease_mark() is None
    async with any_store.lease():
        index = await any_store.create(manifest)
        await index.close()
    now = 0.0
    watch = BuildWatch(lambda: now)
    assert not watch.seen("a", None)
    assert watch.seen("a", "1")
    now = EXPIRY_S - 1
    assert watch.seen("a", "1")
    now = EXPIRY_S + 1
    assert not watch.seen("a", "1"), "nobody renews it: its holder has died"
    assert watch.seen("a", "2")


def test_changes_of_a_record_are_merged() -> None:
    before = CatalogueRecord(name="b", kind="book", recipe="both", attributes=PAGES, search=SearchChanges(mode="sparse", max_k=7))
    after = CatalogueChanges(kind=None, title="Old books", search=SearchChanges(max_k=None, rrf_k=3)).apply_to(before)
    assert (after.kind, after.title, after.recipe, after.attributes) == (None, "Old books", "both", PAGES)
    assert after.search.model_dump(exclude_none=True) == {"mode": "sparse", "rrf_k": 3}
    assert CatalogueChanges(search=None).apply_to(before).search == SearchChanges()
    assert CatalogueChanges(attributes=None).apply_to(before).attributes is None
    assert CatalogueChanges().apply_to(before) == before


def test_attributes_are_changed_one_by_one() -> None:
    shelf = Attribute(type="keyword", source="extra.shelf")
    assert CatalogueChanges().declare_on(PAGES) is None
    assert CatalogueChanges(attributes=dict(PAGES)).declare_on(PAGES) is None
    assert CatalogueChanges(attributes={"pages": None, "shelf": shelf}).declare_on(PAGES) == {"shelf": shelf}
    with pytest.raises(UnknownAttributeError, match=r"no 'size' to remove; there are: pages \(integer\)"):
        CatalogueChanges(attributes={"size": None}).declare_on(PAGES)
    with pytest.raises(UnknownAttributeError, match="at most 64"):
        CatalogueChanges(attributes={f"a{n}": shelf for n in range(64)}).declare_on(PAGES)
