"""`matinee.index.active`: a switch while it is searched and written to; nothing that was written is lost."""

import asyncio
from typing import Any

import pytest

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.index import active as live_module
from matinee.index.active import ActiveIndex, new_revision
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.items import Item
from matinee.settings.tree import Settings
from tests.matinee.active_versions import build, film, get, nearest, put


async def test_before_the_first_build_there_is_no_index(store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    active = ActiveIndex(store)
    assert await active.refresh() is False
    assert active.manifest is None
    for ask in (active.get, lambda: active.get("f")):
        with pytest.raises(IndexAbsentError, match="matinee ingest"):
            ask()
    with pytest.raises(IndexAbsentError):
        await active.delete(films[0].uid("demo"))
    await build(store, maker, films)
    assert await active.refresh() is True
    assert await active.get().count() == 6
    await active.close()


async def test_nothing_changes_until_the_store_switches(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]
) -> None:
    first = active.manifest
    assert await active.refresh() is False
    second = await build(store, maker, films, active)
    assert active.manifest == first
    assert await active.refresh() is True
    assert active.manifest == second
    assert await active.refresh() is False


async def test_searches_go_on_through_a_switch(active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]) -> None:
    await build(store, maker, films, active)
    switching = asyncio.create_task(active.refresh())
    found = 0
    while not switching.done():
        assert await nearest(active, maker, films[0].overview) == films[0].title
        found += 1
    assert await switching is True
    assert found >= 1


async def test_writes_between_build_and_switch_are_carried_over(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]
) -> None:
    await build(store, maker, films, active)
    await put(active, maker, film("late"))
    await active.delete(films[0].uid("demo"))
    before = await get(active, film("late"))
    await active.refresh()
    late = await get(active, film("late"))
    assert late.payload == before.payload
    assert late.vector == pytest.approx(before.vector)
    assert (await get(active, films[0])).payload["deleted"] is True
    assert await nearest(active, maker, "Film late. What happened to late.") == "Film late"
    assert await active.get().count() == 6


async def test_a_rollback_keeps_what_was_written_since(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item]
) -> None:
    first = active.manifest
    await build(store, maker, films, active)
    await active.refresh()
    await put(active, maker, film("since"))
    await active.delete(films[1].uid("demo"))
    assert await store.rollback() == first
    assert await active.refresh() is True
    assert active.manifest == first
    assert await nearest(active, maker, "Film since. What happened to since.") == "Film since"
    assert (await get(active, films[1])).payload["deleted"] is True


async def test_a_switch_that_fails_is_tried_again(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = active.manifest
    second = await build(store, maker, films, active)

    async def full(*_: Any) -> None:
        raise IndexUnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(live_module, "_carry_over", full)
        with pytest.raises(IndexUnavailableError):
            await active.refresh()
    assert active.manifest == first
    assert await nearest(active, maker, films[0].overview) == films[0].title
    assert await active.refresh() is True
    assert active.manifest == second


async def test_a_background_job_never_overwrites_a_newer_write(active: ActiveIndex, maker: PointMaker) -> None:
    await put(active, maker, film("a"))
    seen = (await get(active, film("a"))).payload["revision"]
    uid = film("a").uid("demo")
    changed = film("a").model_copy(update={"title": "Newer"})
    assert await put(active, maker, changed, if_revision={uid: seen - 1}) == 0
    assert await put(active, maker, film("unknown"), if_revision={film("unknown").uid("demo"): 0}) == 0
    assert (await get(active, film("a"))).payload["title"] == "Film a"
    assert await put(active, maker, changed, if_revision={uid: seen}) == 1
    await active.delete(uid)
    assert await put(active, maker, film("a"), if_revision={uid: seen}) == 0
    assert (await get(active, film("a"))).payload["deleted"] is True


async def test_a_delete_says_what_was_there_once(active: ActiveIndex, films: list[Item]) -> None:
    uid = films[0].uid("demo")
    hit = await active.delete(uid)
    assert hit is not None
    assert hit.payload["title"] == films[0].title
    assert await active.delete(uid) is None
    assert await active.delete(film("unknown").uid("demo")) is None
    assert await active.get().count() == 5


async def test_a_deleted_item_can_be_written_again(active: ActiveIndex, maker: PointMaker, films: list[Item]) -> None:
    await active.delete(films[0].uid("demo"))
    await put(active, maker, films[0])
    assert (await get(active, films[0])).payload["deleted"] is False


async def test_a_server_that_died_before_it_followed_a_switch_loses_nothing(
    active: ActiveIndex, store: IndexStore, settings: Settings, maker: PointMaker, films: list[Item]
) -> None:
    await build(store, maker, films, active)
    await put(active, maker, film("late"))
    await active.close()
    again = ActiveIndex(open_store(settings))
    await again.refresh(recover=True)
    assert (await get(again, film("late"))).payload["title"] == "Film late"
    await again.close()


async def test_after_close_the_path_is_free(active: ActiveIndex, store: IndexStore) -> None:
    assert active.manifest is not None
    version = active.manifest.version
    await active.close()
    assert active.manifest is None
    await (await store.open(version)).close()


def test_revisions_grow() -> None:
    assert 10**15 < new_revision() <= new_revision()
    later = 2 * new_revision()
    assert new_revision(later) == later + 1


async def test_revisions_never_go_backwards_though_the_clock_does(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, films: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of whoever writes next is an hour behind: the next Retriever's, or this machine's after it was set right."""

    async def revision(item: Item) -> int:
        return int((await get(active, item)).payload["revision"])

    await put(active, maker, film("early"))
    first = await revision(film("early"))
    monkeypatch.setattr(live_module.time, "time_ns", lambda: (first - 3_600_000_000) * 1000)
    await put(active, maker, film("late"))
    await active.delete(films[0].uid("demo"))
    await put(active, maker, film("early"))
    revisions = [await revision(film("late")), await revision(films[0]), await revision(film("early"))]
    assert revisions == [first + 1, first + 2, first + 3]
    # A build that ends now has all of it, and so has what is written after.
    await build(store, maker, films, active)
    await put(active, maker, film("last"))
    await active.refresh()
    assert (await get(active, film("last"))).payload["title"] == "Film last"
    assert (await get(active, films[0])).payload["deleted"]
