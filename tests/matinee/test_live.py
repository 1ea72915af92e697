"""`matinee.live`: a switch while it is searched and written to, by the same and by another encoder; nothing that was written is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from matinee import live as live_module
from matinee.embedder import Embedder
from matinee.errors import FingerprintError, IndexAbsentError, IndexUnavailableError
from matinee.index import IndexStore, Manifest, Nearest, Search, open_store
from matinee.indexing import Build, IndexWrites, PointMaker
from matinee.items import Item
from matinee.live import LiveIndex, new_revision
from matinee.settings import Settings
from matinee.titles import resolve

pytestmark = pytest.mark.slow


class OtherEncoder:
    """The same encoder under another fingerprint: its vectors are turned, so they mean nothing to the first."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.fingerprint = "f" * 64
        self.dimension = embedder.dimension
        self.model_id = "other"

    def encode(self, texts: Sequence[str], **options: Any) -> Any:
        return np.roll(self._embedder.encode(texts, **options), 7, axis=1)


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    return list(local_graph.demo_films()[:6])


@pytest.fixture(scope="module")
def maker(local_graph: Any) -> PointMaker:
    return PointMaker(local_graph.embedder_replica().slot.model, "raw")


@pytest.fixture(scope="module")
def other(maker: PointMaker) -> PointMaker:
    encoder: Any = OtherEncoder(maker.embedder)
    return PointMaker(encoder, "raw")


@pytest.fixture
def settings(local_graph: Any, tmp_path: Path) -> Settings:
    made: Settings = local_graph.local_settings(tmp_path)
    return made


@pytest.fixture
def store(settings: Settings) -> IndexStore:
    return open_store(settings)


@pytest_asyncio.fixture
async def live(store: IndexStore, maker: PointMaker, films: list[Item]) -> AsyncIterator[LiveIndex]:
    """The live index of a first version."""
    await build(store, maker, films)
    index = LiveIndex(store)
    await index.refresh()
    yield index
    await index.close()


async def build(store: IndexStore, maker: PointMaker, films: Sequence[Item], live: LiveIndex | None = None) -> Manifest:
    api = None if live is None else IndexWrites(live.get())
    return (await Build(store, maker, "demo", "test", api).run(films)).manifest


def film(name: str) -> Item:
    return Item(id=name, kind="film", title=f"Film {name}", overview=f"What happened to {name}.")


async def put(live: LiveIndex, maker: PointMaker, item: Item, **options: Any) -> int:
    points = maker([item], [item.uid("demo")], origin="api", revisions=[new_revision()])
    return await live.upsert(points, fingerprint=maker.embedder.fingerprint, **options)


async def get(live: LiveIndex, item: Item) -> Any:
    [hit] = await live.get().retrieve([item.uid("demo")], vectors=True)
    return hit


async def nearest(live: LiveIndex, maker: PointMaker, text: str) -> str:
    [vector] = maker.embedder.encode([text])
    [[hit]] = await live.get(maker.embedder.fingerprint).search([Search(Nearest(vector), 1)])
    title: str = hit.payload["title"]
    return title


async def test_before_the_first_build_there_is_no_index(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    live = LiveIndex(store)
    assert await live.refresh() is False
    assert live.manifest is None
    for ask in (live.get, lambda: live.get("f")):
        with pytest.raises(IndexAbsentError, match="matinee ingest"):
            ask()
    with pytest.raises(IndexAbsentError):
        await live.delete(films[0].uid("demo"))
    await build(store, maker, films)
    assert await live.refresh() is True
    assert await live.get().count() == 6
    await live.close()


async def test_nothing_changes_until_the_store_switches(live: LiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    first = live.manifest
    assert await live.refresh() is False
    second = await build(store, maker, films, live)
    assert live.manifest == first
    assert await live.refresh() is True
    assert live.manifest == second
    assert await live.refresh() is False


async def test_the_draining_version_answers_for_its_encoder(
    live: LiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, live)
    await live.refresh()
    assert live.get() is live.get(other.embedder.fingerprint)
    assert live.get(maker.embedder.fingerprint) is not live.get()
    text = f"{films[3].title}. {films[3].overview}"
    assert await nearest(live, maker, text) == await nearest(live, other, text) == films[3].title
    with pytest.raises(FingerprintError, match="matinee ingest"):
        live.get("0" * 64)
    drained = live.get(maker.embedder.fingerprint)
    await build(store, other, films, live)
    await live.refresh()
    with pytest.raises(FingerprintError):
        live.get(maker.embedder.fingerprint)
    with pytest.raises(IndexUnavailableError, match="was closed"):
        await drained.count()


async def test_searches_go_on_through_a_switch(live: LiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    await build(store, maker, films, live)
    switching = asyncio.create_task(live.refresh())
    found = 0
    while not switching.done():
        assert await nearest(live, maker, films[0].overview) == films[0].title
        found += 1
    assert await switching is True
    assert found >= 1


async def test_writes_between_build_and_switch_are_carried_over(
    live: LiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]
) -> None:
    await build(store, maker, films, live)
    await put(live, maker, film("late"))
    await live.delete(films[0].uid("demo"))
    before = await get(live, film("late"))
    await live.refresh()
    late = await get(live, film("late"))
    assert late.payload == before.payload
    assert late.vector == pytest.approx(before.vector)
    assert (await get(live, films[0])).payload["deleted"] is True
    assert await nearest(live, maker, "Film late. What happened to late.") == "Film late"
    assert await live.get().count() == 6


async def test_under_another_encoder_they_are_found_by_title_and_wait_for_their_vector(
    live: LiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await put(live, maker, film("early"))
    await build(store, other, films, live)
    await put(live, maker, film("late"))
    await live.delete(films[0].uid("demo"))
    await live.refresh()
    late = await get(live, film("late"))
    assert (late.vector, late.payload["pending"]) == (None, True)
    assert (await resolve(live.get(), "Film late")).id == film("late").uid("demo")
    early = await get(live, film("early"))
    assert (early.vector is not None, early.payload["pending"]) == (True, False)
    gone = await get(live, films[0])
    assert (gone.payload["deleted"], gone.payload["pending"]) == (True, False)
    page, _ = await live.get().scroll(limit=10, pending=True)
    assert [hit.id for hit in page] == [film("late").uid("demo")]


async def test_a_rollback_keeps_what_was_written_since(live: LiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    first = live.manifest
    await build(store, maker, films, live)
    await live.refresh()
    await put(live, maker, film("since"))
    await live.delete(films[1].uid("demo"))
    assert await store.rollback() == first
    assert await live.refresh() is True
    assert live.manifest == first
    assert await nearest(live, maker, "Film since. What happened to since.") == "Film since"
    assert (await get(live, films[1])).payload["deleted"] is True


async def test_a_rollback_to_another_encoder_keeps_the_vectors_that_are_there(
    live: LiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await put(live, maker, film("before"))
    await build(store, other, films, live)
    await live.refresh()
    await put(live, other, film("since"))
    await store.rollback()
    await live.refresh()
    before, since = await get(live, film("before")), await get(live, film("since"))
    assert (before.vector is not None, before.payload["pending"]) == (True, False)
    assert (since.vector, since.payload["pending"]) == (None, True)


async def test_a_switch_that_fails_is_tried_again(
    live: LiveIndex, store: IndexStore, maker: PointMaker, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live.manifest
    second = await build(store, maker, films, live)

    async def full(*_: Any) -> None:
        raise IndexUnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(live_module, "_carry_over", full)
        with pytest.raises(IndexUnavailableError):
            await live.refresh()
    assert live.manifest == first
    assert await nearest(live, maker, films[0].overview) == films[0].title
    assert await live.refresh() is True
    assert live.manifest == second


async def test_a_write_needs_the_encoder_of_the_index(live: LiveIndex, other: PointMaker) -> None:
    with pytest.raises(FingerprintError, match="send them again"):
        await put(live, other, film("a"))
    assert await get(live, film("a")) is None


async def test_during_a_roll_over_writes_reach_the_queries_of_both_encoders(
    live: LiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, live)
    await live.refresh()
    by_old, by_new = film("old"), film("new")
    await put(live, maker, by_old)
    await put(live, other, by_new)
    assert await nearest(live, maker, "Film old. What happened to old.") == "Film old"
    assert await nearest(live, other, "Film new. What happened to new.") == "Film new"
    # Each waits for its vector where the other encoder's queries go, and is found there by its title.
    for maker_of, item in ((other, by_old), (maker, by_new)):
        [hit] = await live.get(maker_of.embedder.fingerprint).retrieve([item.uid("demo")], vectors=True)
        assert (hit.vector, hit.payload["pending"]) == (None, True)
        assert (await resolve(live.get(maker_of.embedder.fingerprint), item.title)).id == item.uid("demo")
    await live.delete(films[0].uid("demo"))
    for maker_of in (maker, other):
        assert await nearest(live, maker_of, films[0].overview) != films[0].title
    # The background job is for the current version: it waits until its own encoder serves.
    with pytest.raises(FingerprintError):
        await put(live, maker, by_old, if_revision={by_old.uid("demo"): (await get(live, by_old)).payload["revision"]})
    revision = (await get(live, by_old)).payload["revision"]
    assert await put(live, other, by_old, if_revision={by_old.uid("demo"): revision}) == 1
    assert await nearest(live, other, "Film old. What happened to old.") == "Film old"


async def test_a_server_that_restarts_in_a_roll_over_still_answers_the_encoder_before(
    live: LiveIndex, store: IndexStore, settings: Settings, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, live)
    await live.close()
    again = LiveIndex(open_store(settings))
    await again.refresh(recover=True)
    for maker_of in (maker, other):
        assert await nearest(again, maker_of, films[0].overview) == films[0].title
    await again.close()
    # The same encoder again: the version before would never be asked.
    await build(store, other, films)
    await again.refresh(recover=True)
    with pytest.raises(FingerprintError):
        again.get(maker.embedder.fingerprint)
    await again.close()


async def test_a_background_job_never_overwrites_a_newer_write(live: LiveIndex, maker: PointMaker) -> None:
    await put(live, maker, film("a"))
    seen = (await get(live, film("a"))).payload["revision"]
    uid = film("a").uid("demo")
    changed = film("a").model_copy(update={"title": "Newer"})
    assert await put(live, maker, changed, if_revision={uid: seen - 1}) == 0
    assert await put(live, maker, film("unknown"), if_revision={film("unknown").uid("demo"): 0}) == 0
    assert (await get(live, film("a"))).payload["title"] == "Film a"
    assert await put(live, maker, changed, if_revision={uid: seen}) == 1
    await live.delete(uid)
    assert await put(live, maker, film("a"), if_revision={uid: seen}) == 0
    assert (await get(live, film("a"))).payload["deleted"] is True


async def test_a_delete_says_what_was_there_once(live: LiveIndex, films: list[Item]) -> None:
    uid = films[0].uid("demo")
    hit = await live.delete(uid)
    assert hit is not None
    assert hit.payload["title"] == films[0].title
    assert await live.delete(uid) is None
    assert await live.delete(film("unknown").uid("demo")) is None
    assert await live.get().count() == 5


async def test_a_deleted_item_can_be_written_again(live: LiveIndex, maker: PointMaker, films: list[Item]) -> None:
    await live.delete(films[0].uid("demo"))
    await put(live, maker, films[0])
    assert (await get(live, films[0])).payload["deleted"] is False


async def test_a_server_that_died_before_it_followed_a_switch_loses_nothing(
    live: LiveIndex, store: IndexStore, settings: Settings, maker: PointMaker, films: list[Item]
) -> None:
    await build(store, maker, films, live)
    await put(live, maker, film("late"))
    await live.close()
    again = LiveIndex(open_store(settings))
    await again.refresh(recover=True)
    assert (await get(again, film("late"))).payload["title"] == "Film late"
    await again.close()


async def test_after_close_the_path_is_free(live: LiveIndex, store: IndexStore) -> None:
    assert live.manifest is not None
    version = live.manifest.version
    await live.close()
    assert live.manifest is None
    await (await store.open(version)).close()


def test_revisions_grow() -> None:
    assert 10**15 < new_revision() <= new_revision()
