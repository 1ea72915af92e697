"""The catalogues of a Retriever on real embedded indexes: opened, closed, created and deleted while messages come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from matinee.errors import (
    CatalogueAbsentError,
    CatalogueConflictError,
    IndexAbsentError,
    IndexLockedError,
    IndexUnavailableError,
    OverloadedError,
    UnknownAttributeError,
)
from matinee.filters.attributes import Attribute
from matinee.index.build import build_empty, new_manifest
from matinee.index.edge import files
from matinee.index.edge.registry import EdgeRegistry
from matinee.index.factory import open_store
from matinee.index.imports import new_job
from matinee.index.protocols import IndexStore
from matinee.index.qdrant.registry import NAME, QdrantRegistry
from matinee.index.qdrant.store import QdrantStore
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.registry import CatalogueChanges, CatalogueRecord, SearchChanges
from matinee.index.types import Point, item_payload
from matinee.items import Item
from matinee.settings.index import FactWeights, IndexSettings
from matinee.settings.tree import Settings
from serve.graph import catalogue_service, messages
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until_async

LATER = 86_400.0
ENCODER, D = "f" * 64, 8


class Server:
    """A Retriever without a default index; `clock` is that of idle catalogues."""

    def __init__(self, graph: Any, home: Path) -> None:
        self._graph, self._home = graph, home
        self.now = 0.0
        self.retriever: RetrieverReplica

    async def start(self, **catalogues: Any) -> None:
        await self._start({"catalogues": catalogues})

    async def start_beside(self, client: AsyncQdrantClient) -> None:
        """On a Qdrant server."""

        def store_of(settings: Settings) -> IndexStore:
            kind = TenantStore if settings.index.collection == "shared" else QdrantStore
            return kind(settings.index, settings.catalogue, client=client)

        index = {"engine": "qdrant", "url": "http://unused:6333"}
        await self._start(index, store_of=store_of, registry=QdrantRegistry(IndexSettings(), client=client))

    async def _start(self, index: dict[str, Any], **more: Any) -> None:
        self.settings = self._graph.local_settings(self._home, index=index)
        # No watcher: a test closes what is idle when it wants to.
        self.retriever = RetrieverReplica(self.settings, Metrics(MemorySink()), watch_s=3600, **more)
        self.retriever.catalogues._clock = lambda: self.now
        await self.retriever.start()

    async def ask(self, message: Any, catalogue: str | None = None) -> Any:
        sent = message if catalogue is None else messages.In(catalogue, message)
        [result] = await self.retriever.call([WireMessage(sent, LATER)])
        return result

    async def create(self, name: str, **more: Any) -> Any:
        return await self.ask(messages.CreateCatalogue(CatalogueRecord(name=name, **more), ENCODER, D))

    async def write(self, name: str, *titles: str) -> Any:
        points = []
        for title in titles:
            item = Item(id=title, title=title)
            vector = np.eye(1, D, len(title) % D, dtype=np.float32)[0]
            points.append(Point(item.uid(name), item_payload(item, origin="api", revision=0), {"text": vector}))
        return await self.ask(messages.Write(tuple(points), ENCODER, "raw"), name)

    async def items(self, name: str) -> Any:
        page = await self.ask(messages.Page(100), name)
        return page if isinstance(page, Exception) else sorted(payload["title"] for _, payload in page[0])

    async def opened(self) -> list[str]:
        return [entry["name"] for entry in await self.ask(messages.CatalogueEntries()) if entry["open"] and not entry["default"]]


@pytest.fixture
async def server(local_graph: Any, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(local_graph, tmp_path)
    yield server
    await server.retriever.close()


async def test_each_catalogue_has_its_own_items_and_one_batch_may_ask_several(server: Server) -> None:
    await server.start()
    for name in ("books", "games"):
        assert (await server.create(name))["state"] == "ready"
        assert (await server.write(name, f"{name} 1")).count == 1
    batch = [messages.In(name, messages.Page(9)) for name in ("books", "games", "nope")]
    books, games, nope = await server.retriever.call([WireMessage(one, LATER) for one in batch])
    assert [payload["title"] for (_, payload), *_ in (books[0], games[0])] == ["books 1", "games 1"]  # type: ignore[index]
    assert isinstance(nope, CatalogueAbsentError)


async def test_what_is_idle_is_closed_and_keeps_its_count(server: Server) -> None:
    await server.start(idle_s=60)
    await server.create("books")
    await server.write("books", "Emma", "Dune")
    server.now = 30
    await server.retriever.catalogues.close_idle()
    assert await server.opened() == ["books"]
    server.now = 91
    await server.retriever.catalogues.close_idle()
    assert await server.opened() == []
    [_, entry] = await server.ask(messages.CatalogueEntries())
    assert (entry["state"], entry["items"]) == ("ready", 2)
    assert await server.items("books") == ["Dune", "Emma"]


async def test_looking_for_background_work_neither_opens_a_catalogue_nor_keeps_it_open(server: Server) -> None:
    await server.start(idle_s=60)
    await server.create("books")
    for name in ("books", "books"):
        assert await server.ask(messages.Pending(8, "0" * 8 + "-0000" * 3 + "-" + "0" * 12), name) == []
        assert await server.ask(messages.ListImports(unfinished=True), name) == []
    assert await server.opened() == []
    store = open_store(CatalogueRecord(name="books").settings(server.settings))
    assert await store.imports().save(new_job("body", 1))
    assert await server.ask(messages.BusyCatalogues()) == ["books"]
    assert len(await server.ask(messages.ListImports(unfinished=True), "books")) == 1
    assert await server.opened() == []
    await server.items("books")
    server.now = 61
    await server.ask(messages.ListImports(unfinished=True), "books")
    await server.retriever.catalogues.close_idle()
    assert await server.opened() == []
    [job] = await store.imports().jobs()
    await store.imports().remove(job.id)
    assert await server.ask(messages.BusyCatalogues()) == []


async def test_above_the_limit_the_one_that_was_used_least_recently_is_closed(server: Server) -> None:
    await server.start(open=2)
    for n, name in enumerate(("a", "b", "c")):
        await server.create(name)
        server.now = n
        await server.write(name, "x")
    await until_async(lambda: "a" not in server.retriever.catalogues._entries)
    assert await server.opened() == ["b", "c"]
    assert await server.items("a") == ["x"], "the next request opens it again"


def held(monkeypatch: pytest.MonkeyPatch, index: Any, call: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Holds up a call of an index; says that it has begun, and waits for a word to go on."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    real: Callable[..., Any] = getattr(index, call)

    async def slow(*args: Any, **more: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await real(*args, **more)

    monkeypatch.setattr(index, call, slow)
    return begun, go_on


async def test_where_all_that_may_be_open_are_at_work_another_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.start(open=1)
    await server.create("books")
    await server.create("games")
    await server.items("books")
    index = (await server.retriever.catalogues._entries["books"].opening).active.get()
    begun, go_on = held(monkeypatch, index, "scroll")
    asking = asyncio.create_task(server.items("books"))
    await begun.wait()
    assert isinstance(await server.items("games"), OverloadedError)
    go_on.set()
    assert await asking == []
    assert await server.items("games") == []


async def test_a_catalogue_that_is_deleted_ends_what_is_under_way_and_takes_nothing_new(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    index = (await server.retriever.catalogues._entries["books"].opening).active.get()
    begun, go_on = held(monkeypatch, index, "scroll")
    asking = asyncio.create_task(server.items("books"))
    await begun.wait()
    deleting = asyncio.create_task(server.ask(messages.DeleteCatalogue("books")))

    async def refused() -> bool:
        return isinstance(await server.ask(messages.ReadStatus(), "books"), CatalogueAbsentError)

    while not await refused():  # noqa: ASYNC110  the mark in the registry tells nobody
        await asyncio.sleep(0.01)
    assert isinstance(await server.create("books"), CatalogueConflictError)
    assert not deleting.done()
    go_on.set()
    assert await asking == ["Emma"]
    assert await deleting is None
    assert not (server.settings.indexes_dir / "books").exists()
    await server.create("books")
    assert await server.items("books") == []


async def test_what_a_kill_left_of_a_deletion_is_deleted_by_the_next(server: Server) -> None:
    await server.start()
    await server.create("books")
    registry = EdgeRegistry(server.settings.indexes_dir)
    await registry.update("books", lambda record: record.model_copy(update={"state": "deleting"}))
    server.now = 3601
    assert isinstance(await server.items("books"), CatalogueAbsentError)
    [_, entry] = await server.ask(messages.CatalogueEntries())
    assert entry["state"] == "deleting"
    assert await server.ask(messages.DeleteCatalogue("books")) is None
    assert await registry.records() == {}


async def test_one_that_is_built_or_open_elsewhere_is_not_deleted(server: Server) -> None:
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    store = open_store(CatalogueRecord(name="books").settings(server.settings))
    async with store.lease():
        assert isinstance(await server.ask(messages.DeleteCatalogue("books")), CatalogueConflictError)
        assert isinstance(await server.create("books"), CatalogueConflictError)
    assert await server.items("books") == ["Emma"]
    with pytest.raises(IndexLockedError):
        await store.destroy()
    assert await server.items("books") == ["Emma"]


async def test_a_name_whose_index_is_being_built_is_not_created(server: Server) -> None:
    await server.start()
    store = open_store(CatalogueRecord(name="books").settings(server.settings))
    async with store.lease():
        assert isinstance(refused := await server.create("books"), CatalogueConflictError)
        assert "is being built" in str(refused)
    assert await EdgeRegistry(server.settings.indexes_dir).records() == {}
    assert (await server.create("books"))["state"] == "ready"


async def test_one_that_another_process_deletes_and_creates_again_is_another(server: Server) -> None:
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    registry = EdgeRegistry(server.settings.indexes_dir)
    await registry.update("books", lambda record: record.model_copy(update={"created": "2000-01-01"}))
    server.now = 3601
    assert await server.items("books") == ["Emma"]
    entry = server.retriever.catalogues._entries["books"]
    assert entry.record.created == "2000-01-01"
    await registry.remove("books")
    server.now = 7300
    await server.retriever.catalogues.close_idle()
    assert server.retriever.catalogues._entries == {}
    server.retriever.check_health()


async def test_on_a_qdrant_server_small_catalogues_share_a_collection(server: Server) -> None:
    client = AsyncQdrantClient(":memory:")
    await server.start_beside(client)
    before = QdrantStore(IndexSettings(), "old", client=client)
    await build_empty(before, new_manifest("old", ENCODER, D, "raw", FactWeights(), "test", None))
    for name in ("books", "games", "old"):
        assert (await server.create(name))["state"] == "ready"
        assert (await server.write(name, f"{name} 1", f"{name} 2")).count == 2
    collections = [entry.name for entry in (await client.get_collections()).collections]
    assert len([name for name in collections if name.startswith("_matinee_shared.")]) == 1
    assert len([name for name in collections if name.startswith("old.")]) == 1, "what had an index of its own keeps it"
    assert [await server.items(name) for name in ("books", "games", "old")] == [[f"{n} 1", f"{n} 2"] for n in ("books", "games", "old")]
    entries = await server.ask(messages.CatalogueEntries())
    assert [(entry["name"], entry["items"]) for entry in entries if not entry["default"]] == [("books", 2), ("games", 2), ("old", 2)]
    assert await server.ask(messages.DeleteCatalogue("books")) is None
    assert isinstance(await server.items("books"), CatalogueAbsentError)
    assert await server.items("games") == ["games 1", "games 2"]
    assert await server.ask(messages.DeleteCatalogue("old")) is None
    left = {entry.name for entry in (await client.get_collections()).collections}
    assert not [name for name in left if name.startswith(("old", "books"))]
    assert NAME in left
    assert isinstance(await server.ask(messages.DeleteCatalogue("demo")), CatalogueConflictError)


PAGES = Attribute(type="integer", source="numbers.pages")


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while not await condition():  # noqa: ASYNC110  the end of a change tells nobody
            await asyncio.sleep(0.005)


async def test_attributes_are_changed_while_the_catalogue_answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_service, "CHANGE_S", 0.0)
    await server.start()
    await server.create("books")
    await server.write("books", "Emma", "Dune")
    index = (await server.retriever.catalogues._entries["books"].opening).active.get()
    begun, go_on = held(monkeypatch, index, "points")
    entry = await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(title="Books", attributes={"pages": PAGES})))
    assert (entry["building"], entry["state"], entry["attributes"]) == (True, "ready", 6)
    await begun.wait()
    assert await server.items("books") == ["Dune", "Emma"]
    assert (await server.ask(messages.ReadStatus(), "books")).building
    again = await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(attributes={"pages": None, "kind": None})))
    assert isinstance(again, UnknownAttributeError | CatalogueConflictError)
    await server.write("books", "Emma 2")
    go_on.set()

    async def changed() -> bool:
        [_, entry] = await server.ask(messages.CatalogueEntries())
        return not entry["building"] and entry["attributes"] == 7

    await until_true(changed)
    assert await server.items("books") == ["Dune", "Emma", "Emma 2"]
    [_, entry] = await server.ask(messages.CatalogueEntries())
    assert (entry["trouble"], entry["title"]) == (None, "Books")


async def test_a_change_that_fails_later_is_shown_until_the_next(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_service, "CHANGE_S", 0.0)
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    with monkeypatch.context() as patch:
        patch.setattr(files, "require_space", lambda *_: (_ for _ in ()).throw(IndexUnavailableError("the disk is nearly full")))
        await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(attributes={"pages": PAGES})))

        async def failed() -> bool:
            [_, entry] = await server.ask(messages.CatalogueEntries())
            return entry["trouble"] == "its attributes were not changed: the disk is nearly full" and not entry["building"]

        await until_true(failed)
    assert await server.items("books") == ["Emma"]
    monkeypatch.setattr(catalogue_service, "CHANGE_S", 60.0)
    entry = await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(attributes={"pages": PAGES})))
    assert (entry["trouble"], entry["attributes"], entry["building"]) == (None, 7, False)


async def test_a_catalogue_is_deleted_although_its_index_is_being_copied(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_service, "CHANGE_S", 0.0)
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    index = (await server.retriever.catalogues._entries["books"].opening).active.get()
    begun, _ = held(monkeypatch, index, "points")
    await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(attributes={"pages": PAGES})))
    await begun.wait()
    assert await server.ask(messages.DeleteCatalogue("books")) is None
    assert not (server.settings.indexes_dir / "books").exists()
    assert server.retriever._catalogue_service._changing == {}


async def test_other_settings_of_search_count_at_once(server: Server) -> None:
    await server.start()
    await server.create("books")
    await server.write("books", "Emma")
    opened = await server.retriever.catalogues._entries["books"].opening
    await server.ask(messages.ChangeCatalogue("books", CatalogueChanges(search=SearchChanges(max_k=7))))
    await server.items("books")
    assert opened._settings.search.max_k == 7
    assert opened is await server.retriever.catalogues._entries["books"].opening, "nothing was closed for it"
    refused = await server.ask(messages.ChangeCatalogue("demo", CatalogueChanges(title="x")))
    assert isinstance(refused, CatalogueConflictError)
    assert "the server's settings" in str(refused)


async def test_a_first_index_is_made_and_never_a_second(server: Server) -> None:
    await server.start()
    [entry] = await server.ask(messages.CatalogueEntries())
    assert entry["state"] == "empty"
    made = await server.ask(messages.CreateIndex("demo", {"pages": PAGES}, ENCODER, D))
    assert (made["state"], made["items"], made["attributes"]) == ("ready", 0, 1)
    assert isinstance(await server.ask(messages.CreateIndex("demo", None, ENCODER, D)), CatalogueConflictError)
    # A catalogue that a command created while no server ran has none either.
    await EdgeRegistry(server.settings.indexes_dir).add(CatalogueRecord(name="games", attributes={"pages": PAGES}, created="now"), 9)
    server.now = 3601
    assert isinstance(await server.items("games"), IndexAbsentError)
    changed = await server.ask(messages.ChangeCatalogue("games", CatalogueChanges(attributes={"size": PAGES})))
    assert changed["state"] == "empty"
    record = (await EdgeRegistry(server.settings.indexes_dir).records())["games"]
    assert [*(record.attributes or ())] == ["pages", "size"]
    server.now = 7202
    made = await server.ask(messages.CreateIndex("games", {"colour": PAGES}, ENCODER, D))
    assert (made["state"], made["attributes"]) == ("ready", 2), "those that it was created with"
    assert (await server.write("games", "Chess")).count == 1


async def test_a_first_index_that_is_being_built_elsewhere_is_seen(server: Server) -> None:
    await server.start()
    await EdgeRegistry(server.settings.indexes_dir).add(CatalogueRecord(name="games", created="now"), 9)
    server.now = 3601
    async with open_store(CatalogueRecord(name="games").settings(server.settings)).lease():
        [_, entry] = await server.ask(messages.CatalogueEntries())
        assert (entry["state"], entry["building"]) == ("building", True)
        assert isinstance(await server.ask(messages.CreateIndex("games", None, ENCODER, D)), CatalogueConflictError)
    [_, entry] = await server.ask(messages.CatalogueEntries())
    assert (entry["state"], entry["building"]) == ("empty", False)


PENDING = messages.Pending(8, "00000000-0000-0000-0000-000000000000")


async def test_what_waits_for_descriptions_is_found_after_its_catalogue_was_closed_or_the_server_killed(server: Server) -> None:
    await server.start(idle_s=60)
    await server.create("books", recipe="enhanced")
    await server.write("books", "Emma")

    async def close() -> None:
        server.now += 61
        await server.retriever.catalogues.close_idle()
        assert await server.opened() == []
        server.now += 3601

    await close()
    assert await server.ask(messages.BusyCatalogues()) == ["books"]
    [(id, payload)] = await server.ask(PENDING, "books")
    assert await server.opened() == ["books"], "opened for its background work alone"
    assert (await server.retriever.catalogues.find("books")).pending, "a kill from here on loses nothing"
    item = Item.model_validate(payload["item"])
    done = item_payload(item, origin="api", revision=payload["revision"], description="A matchmaker.")
    vector = np.eye(1, D, dtype=np.float32)[0]
    write = messages.Write((Point(id, done, {"text": vector}),), ENCODER, "enhanced", {id: payload["revision"]})
    assert (await server.ask(write, "books")).count == 1
    await close()
    assert await server.ask(messages.BusyCatalogues()) == []
    assert await server.ask(PENDING, "books") == []
    assert await server.opened() == []


async def test_no_catalogue_is_closed_for_the_descriptions_of_another(server: Server) -> None:
    await server.start(open=1)
    for name in ("books", "games"):
        await server.create(name, recipe="enhanced")
        await server.write(name, name)
    await until_async(lambda: [*server.retriever.catalogues._entries] == ["games"])
    await until_async(lambda: not server.retriever.catalogues._tasks)
    server.now += 3601
    assert sorted(await server.ask(messages.BusyCatalogues())) == ["books", "games"]
    assert await server.ask(PENDING, "books") == []
    assert await server.opened() == ["games"]


async def test_a_late_description_does_not_reach_the_next_catalogue_of_the_name(server: Server) -> None:
    await server.start()
    await server.create("books", recipe="enhanced")
    await server.write("books", "Emma")
    [(id, payload)] = await server.ask(PENDING, "books")
    late = item_payload(Item(id="Emma", title="Emma"), origin="api", revision=payload["revision"], description="Too late.")
    write = messages.Write((Point(id, late, {"text": np.eye(1, D, dtype=np.float32)[0]}),), ENCODER, "enhanced", {id: payload["revision"]})
    assert await server.ask(messages.DeleteCatalogue("books")) is None
    assert isinstance(await server.ask(write, "books"), CatalogueAbsentError)
    await server.create("books", recipe="enhanced")
    await server.write("books", "Emma")
    assert (await server.ask(write, "books")).count == 0
    [(_, kept)] = await server.ask(PENDING, "books")
    assert "description" not in kept
