"""The registry of catalogues: one body for both engines."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient

from matinee.errors import CatalogueAbsentError, CatalogueConflictError, IndexUnavailableError, SettingsError
from matinee.index import catalogues
from matinee.index.build import build_empty, new_manifest
from matinee.index.edge.registry import FILE, EdgeRegistry
from matinee.index.protocols import IndexStore
from matinee.index.qdrant.registry import QdrantRegistry
from matinee.index.registry import CatalogueRecord, CatalogueRegistry, SearchChanges, new_record
from matinee.settings.index import FactWeights, IndexSettings
from matinee.settings.load import load_settings

BOOKS = new_record(CatalogueRecord(name="books", kind="book", search=SearchChanges(mode="sparse", max_k=5)))


@pytest.fixture(params=["edge", "qdrant"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CatalogueRegistry]:
    if request.param == "edge":
        yield EdgeRegistry(tmp_path / "index")
        return
    settings = IndexSettings(engine="qdrant", url="http://unused:6333")
    client = AsyncQdrantClient(":memory:")
    yield QdrantRegistry(settings, client=client)
    await client.close()


async def test_records_are_kept_changed_and_removed(registry: CatalogueRegistry) -> None:
    assert await registry.records() == {}
    await registry.add(BOOKS, 9)
    assert await registry.records() == {"books": BOOKS}
    with pytest.raises(CatalogueConflictError, match="'books' exists already"):
        await registry.add(BOOKS, 9)
    deleting = BOOKS.model_copy(update={"state": "deleting", "items": 3})
    assert await registry.update("books", lambda record: record.model_copy(update={"state": "deleting", "items": 3})) == deleting
    assert await registry.records() == {"books": deleting}
    with pytest.raises(CatalogueConflictError, match="is being deleted"):
        await registry.add(BOOKS, 9)
    await registry.remove("books")
    await registry.remove("books")
    assert await registry.records() == {}
    with pytest.raises(CatalogueAbsentError):
        await registry.update("books", lambda record: record)
    await registry.close()


async def test_of_changes_at_one_moment_none_is_lost(registry: CatalogueRegistry) -> None:
    await registry.add(BOOKS, 9)
    changes = [{"items": 7}, {"title": "Old books"}, {"kind": "novel"}, {"pending": True}]
    await asyncio.gather(*(registry.update("books", lambda record, one=one: record.model_copy(update=one)) for one in changes))  # type: ignore[misc]
    after = (await registry.records())["books"]
    assert (after.items, after.title, after.kind, after.pending) == (7, "Old books", "novel", True)


async def test_of_many_that_are_added_at_once_each_name_is_one_of_them_and_no_more_than_allowed(registry: CatalogueRegistry) -> None:
    names = ["a", "b", "a", "c", "a", "b"]
    done = await asyncio.gather(*(registry.add(CatalogueRecord(name=name), 9) for name in names), return_exceptions=True)
    assert sorted(await registry.records()) == ["a", "b", "c"]
    assert sum(isinstance(one, CatalogueConflictError) for one in done) == 3
    with pytest.raises(CatalogueConflictError, match="there are 3 catalogues already"):
        await registry.add(CatalogueRecord(name="d"), 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"catalogues": {"x": {"name": "X"}}}', '{"more": 1}'])
async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(IndexUnavailableError, match=rf"{FILE}.*create the catalogues again"):
        await EdgeRegistry(tmp_path).records()
    with pytest.raises(IndexUnavailableError):
        await EdgeRegistry(tmp_path).add(BOOKS, 9)
    assert (tmp_path / FILE).read_text(encoding="utf-8") == text


async def test_a_record_changes_the_settings_that_it_names() -> None:
    base = load_settings(environ={})
    own = BOOKS.model_copy(update={"recipe": "both"}).settings(base)
    assert (own.catalogue, own.index.recipe, own.search.mode, own.search.max_k) == ("books", "both", "sparse", 5)
    assert own.search.prefetch == base.search.prefetch
    with pytest.raises(SettingsError, match=r"search\.max_k"):
        SearchChanges(max_k=0).apply_to(base.search)


async def test_a_destroyed_catalogue_leaves_nothing(any_store: IndexStore) -> None:
    await any_store.destroy()
    manifest = new_manifest("test", "f" * 64, 4, "raw", FactWeights(), "test", None)
    await build_empty(any_store, manifest)
    assert await any_store.current() == manifest
    await build_empty(any_store, manifest.model_copy(update={"version": "other"}))
    assert [one.version for one in await any_store.versions()] == [manifest.version], "there is one already"
    await any_store.destroy()
    assert await any_store.current() is None
    assert await any_store.versions() == []
    await build_empty(any_store, manifest)
    assert await any_store.current() == manifest


async def test_a_command_lists_creates_and_deletes_what_lies_here(tmp_path: Path) -> None:
    settings = load_settings({"home": tmp_path}, environ={})
    await catalogues.create_catalogue(settings, BOOKS)
    with pytest.raises(CatalogueConflictError):
        await catalogues.create_catalogue(settings, BOOKS)
    with pytest.raises(CatalogueConflictError, match="the default one"):
        await catalogues.create_catalogue(settings, CatalogueRecord(name="demo"))
    with pytest.raises(SettingsError, match="means something else"):
        await catalogues.create_catalogue(settings, CatalogueRecord(name="none"))
    listed: list[Any] = await catalogues.list_catalogues(settings)
    assert [(one.name, one.manifest) for one in listed] == [("demo", None), ("books", None)]
    await catalogues.register(settings, BOOKS)
    with pytest.raises(CatalogueConflictError, match="can't be deleted"):
        await catalogues.remove_catalogue(settings, "demo")
    await catalogues.remove_catalogue(settings, "books")
    with pytest.raises(CatalogueAbsentError):
        await catalogues.remove_catalogue(settings, "books")


async def test_one_that_is_being_built_is_not_deleted(tmp_path: Path) -> None:
    settings = load_settings({"home": tmp_path}, environ={})
    await catalogues.create_catalogue(settings, BOOKS)
    store = catalogues.open_store(BOOKS.settings(settings))
    async with store.lease():
        with pytest.raises(CatalogueConflictError, match="another ingest"):
            await catalogues.remove_catalogue(settings, "books")
    record = await catalogues.find_record(BOOKS.settings(settings))
    assert record is not None
    assert record.state == "ready"
    catalogues.require_usable(record)
    with pytest.raises(CatalogueConflictError, match="is being deleted"):
        catalogues.require_usable(record.model_copy(update={"state": "deleting"}))
