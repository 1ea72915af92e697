"""How versions are built, finished, switched, rolled back and pruned: one body for every engine (see `any_store`)."""

import uuid

import numpy as np
import pytest

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.index.protocols import IndexStore
from matinee.index.types import TEXT, Manifest, Point

POINTS = [Point(str(uuid.UUID(int=i)), {"revision": i}, {TEXT: np.eye(4, dtype=np.float32)[i]}) for i in range(2)]


def manifest(version: str = "v1") -> Manifest:
    return Manifest(version=version, catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4}, count=2)


async def test_versions_switch_and_roll_back(any_store: IndexStore) -> None:
    assert await any_store.current() is None
    assert await any_store.versions() == []
    with pytest.raises(IndexAbsentError):
        await any_store.rollback()
    for version in ("v1", "v2", "v3"):
        opened = await any_store.create(manifest(version))
        await opened.upsert(POINTS)
        await opened.close()
        with pytest.raises(IndexAbsentError):
            await any_store.open(version)
        await any_store.finish(manifest(version))
        await any_store.switch(version)
        await any_store.switch(version)
    assert await any_store.versions() == [manifest("v3"), manifest("v2"), manifest("v1")]
    assert (await any_store.current(), await any_store.previous()) == (manifest("v3"), manifest("v2"))
    assert await any_store.rollback() == manifest("v2")
    assert (await any_store.current(), await any_store.previous()) == (manifest("v2"), manifest("v3"))
    opened = await any_store.open("v2")
    assert await opened.count() == 2
    await opened.close()


async def test_prune_keeps_what_is_in_use(any_store: IndexStore) -> None:
    for version in ("v1", "v2", "v3", "v4"):
        await (await any_store.create(manifest(version))).close()
        await any_store.finish(manifest(version))
    await (await any_store.create(manifest("v5"))).close()
    await any_store.switch("v1")
    await any_store.switch("v2")
    assert sorted(await any_store.prune(1)) == ["v3", "v5"]
    assert [found.version for found in await any_store.versions()] == ["v4", "v2", "v1"]
    assert await any_store.prune(1) == []


async def test_names_that_do_not_exist_or_exist_already(any_store: IndexStore) -> None:
    for call in (any_store.open, any_store.switch):
        with pytest.raises(IndexAbsentError, match=r"matinee ingest|can't be the name"):
            await call("../nowhere")
    with pytest.raises(IndexAbsentError):
        await any_store.finish(manifest("nowhere"))
    first = await any_store.create(manifest())
    await first.upsert(POINTS)
    await first.close()
    again = await any_store.create(manifest())
    assert await again.count() == 0
    assert await again.max_revision() == 0
    await again.close()
    await any_store.finish(manifest())
    with pytest.raises(IndexUnavailableError, match="exists already"):
        await any_store.create(manifest())
