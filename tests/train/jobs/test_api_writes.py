"""What a build reads of the API's writes where no server holds the index: of the current version, a page at a time."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from matinee.index.build import new_manifest
from matinee.index.factory import open_store
from matinee.index.types import TEXT, Point, item_payload, tombstone
from matinee.items import Item
from matinee.settings.index import FactWeights
from matinee.settings.load import load_settings
from train.jobs import api_writes
from train.jobs.api_writes import CurrentApiWrites, ServerConnection


def point(name: str, origin: Literal["file", "api"], revision: int) -> Point:
    item = Item(id=name, title=name)
    return Point(item.uid("demo"), item_payload(item, origin=origin, revision=revision), {TEXT: np.array([0.6, 0.8], np.float32)})


async def test_the_current_versions_writes_come_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"home": tmp_path}, environ={})
    store = open_store(settings)
    unused: Any = None
    writes = CurrentApiWrites(settings, store, ServerConnection(None, None, unused))
    assert [page async for page in writes.read(0)] == [[]], "there is no index yet"
    manifest = new_manifest("demo", "f" * 64, 2, "raw", FactWeights(year=0, votes=0, genres=0, language=0), "test", None)
    index = await store.create(manifest)
    written = [point(name, "api", revision) for revision, name in enumerate("abcd", start=1)]
    await index.upsert([*written, point("of the file", "file", 0), tombstone(Item(id="gone", title="x").uid("demo"), revision=9)])
    await index.close()
    await store.finish(manifest)
    await store.switch(manifest.version)
    monkeypatch.setattr(api_writes, "_PAGE", 2)
    pages = [page async for page in writes.read(2)]
    assert max(map(len, pages)) == 2
    assert sorted((entry.revision, entry.item and entry.item.title) for page in pages for entry in page) == [(3, "c"), (4, "d"), (9, None)]
    await store.close()
