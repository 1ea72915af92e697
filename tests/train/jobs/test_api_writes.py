"""What a build reads of the API's writes where no server holds the index: of the current version, a page at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from matinee.errors import IndexLockedError
from matinee.index.build import new_manifest
from matinee.index.factory import open_store
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import TEXT, Point, item_payload, tombstone
from matinee.items import Item
from matinee.settings.index import FactWeights
from matinee.settings.load import load_settings
from tests.waiting import HANG_S
from train.jobs import api_writes
from train.jobs.api_writes import CurrentApiWrites, ServerConnection


def point(name: str, origin: Literal["file", "api"], revision: int) -> Point:
    item = Item(id=name, title=name)
    return Point(item.uid("demo"), item_payload(item, origin=origin, revision=revision), {TEXT: np.array([0.6, 0.8], np.float32)})


async def build(store: IndexStore) -> None:
    """A current version with four items and a tombstone of the API, and an item of the file."""
    manifest = new_manifest("demo", "f" * 64, 2, "raw", FactWeights(year=0, votes=0, genres=0, language=0), "test", None)
    index = await store.create(manifest)
    written = [point(name, "api", revision) for revision, name in enumerate("abcd", start=1)]
    await index.upsert([*written, point("of the file", "file", 0), tombstone(Item(id="gone", title="x").uid("demo"), revision=9)])
    await index.close()
    await store.finish(manifest)
    await store.switch(manifest.version)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IndexStore]:
    monkeypatch.setattr(api_writes, "_PAGE", 2)
    store = open_store(load_settings({"home": tmp_path}, environ={}))
    yield store
    await store.close()


def writes_of(store: IndexStore, home: Path) -> CurrentApiWrites:
    unused: Any = None
    return CurrentApiWrites(load_settings({"home": home}, environ={}), store, ServerConnection(None, None, unused))


async def test_the_current_versions_writes_come_page_by_page(store: IndexStore, tmp_path: Path) -> None:
    writes = writes_of(store, tmp_path)
    assert [page async for page in writes.read(0)] == [[]], "there is no index yet"
    await build(store)
    pages = [page async for page in writes.read(2)]
    assert max(map(len, pages)) == 2
    assert sorted((entry.revision, entry.item and entry.item.title) for page in pages for entry in page) == [(3, "c"), (4, "d"), (9, None)]


async def open_current(store: IndexStore) -> Index:
    current = await store.current()
    assert current is not None
    return await store.open(current.version)


async def test_it_is_held_from_page_to_page(store: IndexStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_writes, "_HELD_S", HANG_S)
    await build(store)
    async with aclosing(writes_of(store, tmp_path).read(0)) as pages:
        async for _ in pages:
            with pytest.raises(IndexLockedError):
                await open_current(store)
    await (await open_current(store)).close()


async def test_who_takes_long_over_a_page_does_not_keep_a_server_from_it(
    store: IndexStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_writes, "_HELD_S", 0)
    await build(store)
    seen = []
    async with aclosing(writes_of(store, tmp_path).read(0)) as pages:
        async for page in pages:
            seen += [entry.revision for entry in page]
            async with asyncio.timeout(HANG_S):
                while True:
                    with suppress(IndexLockedError):
                        await (await open_current(store)).close()
                        break
    assert sorted(seen) == [1, 2, 3, 4, 9]
