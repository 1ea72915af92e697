"""What a write leaves for later is done later, once, and never over a newer write."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import DeadlineError, FingerprintError, IndexUnavailableError, MatineeError
from matinee.index.api_writes import IndexWrites
from matinee.index.item_vector import item_vector
from matinee.items import Item
from serve.errors import RequestError, UnavailableError
from serve.graph import gateway, messages
from serve.graph.item_writes import ItemWrites
from tests.waiting import HANG_S

A = Item(id="a", kind="film", title="The Brass Cartographer", year=2030, overview="A cartographer maps a sea of brass.")
B = Item(id="b", kind="film", title="The Salt Clock", year=2031)


@pytest.fixture
def kept(local_graph: Any, tmp_path: Path) -> Callable[..., Any]:
    """A factory: an `ItemWrites` on a graph of a few films, whose index has the given recipe."""

    @asynccontextmanager
    async def make(recipe: str = "both") -> AsyncIterator[tuple[ItemWrites, Any, Any]]:
        settings, enhancer = local_graph.local_settings(tmp_path, index={"recipe": recipe}), local_graph.FakeEnhancer()
        graph = local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:3], enhancer=enhancer, settings=settings)
        async with graph as service:
            yield ItemWrites(service), service, enhancer

    return make


async def stored(service: Any, id: str) -> dict[str, Any]:
    _, payload = await service.find_stored(id, service.new_context())
    return dict(payload)


async def test_raw_items_are_done_when_they_are_put(kept: Any) -> None:
    async with kept("raw") as (writes, service, _):
        [state] = await writes.put([A], service.new_context())
        assert (state.searchable, state.enriched) == (True, False)
        assert (await stored(service, "a"))["pending"] is False
        assert await writes.enrich_pending() == 0


async def test_where_descriptions_are_wanted_they_follow(kept: Any) -> None:
    async with kept() as (writes, service, _):
        states = await writes.put([A, B], service.new_context())
        before = await stored(service, "a")
        assert (before["pending"], before["enriched"]) == (True, False)
        assert await writes.enrich_pending() == 2
        after = await stored(service, "a")
        assert (after["pending"], after["enriched"]) == (False, True)
        assert after["description"] == "The Brass Cartographer, in other words."
        assert after["revision"] == before["revision"] == states[0].revision
        assert await writes.enrich_pending() == 0


async def test_many_are_finished_in_turns(kept: Any) -> None:
    async with kept() as (writes, service, _):
        await writes.put([Item(id=f"n{n}", title=f"Number {n}") for n in range(19)], service.new_context())
        assert [await writes.enrich_pending() for _ in range(4)] == [8, 8, 3, 0]


@pytest.mark.parametrize("late", [DeadlineError("late"), UnavailableError("gone")])
async def test_while_the_enhancer_is_busy_items_stay_pending_and_found(kept: Any, late: Exception) -> None:
    async with kept() as (writes, service, enhancer):
        await writes.put([A], service.new_context())
        enhancer.fails = late
        with pytest.raises(Exception, match="the enhancer is busy"):
            await writes.enrich_pending()
        assert (await stored(service, "a"))["pending"] is True
        enhancer.fails = None
        assert await writes.enrich_pending() == 1


async def test_what_cant_be_described_keeps_nothing_else_waiting(kept: Any) -> None:
    async with kept() as (writes, service, enhancer):
        await writes.put([Item(id=f"n{n}", title=f"Number {n}") for n in range(12)], service.new_context())
        enhancer.late = frozenset({f"Number {n}" for n in range(9)})
        done = 0
        # Each try begins at a random item, so an item that comes shortly after another one is seldom the first.
        for _ in range(5000):
            with suppress(MatineeError):
                done += await writes.enrich_pending()
            if done == 3:
                break
        assert done == 3
        enhancer.late = frozenset()
        while done < 12:
            done += await writes.enrich_pending()
        assert await writes.enrich_pending() == 0


async def test_a_write_that_comes_meanwhile_wins(kept: Any) -> None:
    async with kept() as (writes, service, enhancer):
        await writes.put([A, B], service.new_context())
        ask = service.graph.retriever

        async def slow(unit: Any, deadline: float) -> Any:
            if isinstance(unit, messages.Write) and unit.if_revision is not None:
                service.graph = type(service.graph)(service.graph.embedder, ask, enhancer, service.graph.infos)
                await writes.put([A.model_copy(update={"title": "Renamed"})], service.new_context())
                await writes.delete("b", service.new_context())
            return await ask(unit, deadline)

        service.graph = type(service.graph)(service.graph.embedder, slow, enhancer, service.graph.infos)
        assert await writes.enrich_pending() == 0
        assert ((await stored(service, "a"))["item"]["title"], (await stored(service, "a"))["pending"]) == ("Renamed", True)
        with pytest.raises(RequestError):
            await stored(service, "b")
        assert await writes.enrich_pending() == 1
        assert (await stored(service, "a"))["description"] == "Renamed, in other words."


async def test_an_index_that_is_switched_meanwhile_costs_one_more_try(kept: Any) -> None:
    async with kept("raw") as (writes, service, _):
        ask, refusals = service.graph.retriever, [FingerprintError("switched")]

        async def retriever(unit: Any, deadline: float) -> Any:
            if isinstance(unit, messages.Write) and refusals:
                raise refusals.pop()
            return await ask(unit, deadline)

        service.graph = type(service.graph)(service.graph.embedder, retriever, None, service.graph.infos)
        await writes.put([A], service.new_context())
        assert (await stored(service, "a"))["item"]["id"] == "a"
        refusals += [FingerprintError("switched")] * 2
        with pytest.raises(FingerprintError):
            await writes.put([A], service.new_context())


async def test_twins_are_named(kept: Any) -> None:
    async with kept("raw") as (writes, service, _):
        with pytest.raises(RequestError, match="'The Salt Clock' is there twice"):
            await writes.put([A, B, B], service.new_context())


async def test_delete_what_is_not_there(kept: Any) -> None:
    async with kept("raw") as (writes, service, _):
        with pytest.raises(RequestError, match="no item has the id 'a'"):
            await writes.delete("a", service.new_context())


async def test_the_background_job_outlives_every_error_and_stops(kept: Any) -> None:
    import asyncio

    async with kept() as (_, service, _):
        writes = ItemWrites(service, idle_s=0)
        errors, survived = [IndexUnavailableError("down"), RuntimeError("bug")], asyncio.Event()

        async def enrich_pending() -> int:
            if errors:
                raise errors.pop()
            survived.set()
            return 0

        writes.enrich_pending = enrich_pending  # type: ignore[method-assign]
        writes.start()
        await asyncio.wait_for(survived.wait(), HANG_S)
        await writes.stop()
        task = writes._task
        assert task is not None
        await asyncio.wait([task], timeout=HANG_S)
        assert task.cancelled()


async def test_the_loop_goes_on_while_the_terms_of_many_items_are_made(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a write waits for the loop to turn: on the loop itself it would wait for ever."""
    turned = threading.Event()

    def waits(function: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            turned.clear()
            loop.call_soon_threadsafe(turned.set)
            assert turned.wait(HANG_S), "the loop is blocked"
            return function(*args, **kwargs)

        return step

    async with kept() as (writes, service, _):
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(writes._bm25, "document", waits(writes._bm25.document), raising=False)
        monkeypatch.setattr(gateway, "ItemTexts", waits(gateway.ItemTexts))
        await writes.put([A, B], service.new_context())
        assert await writes.enrich_pending() == 2
        assert (await stored(service, "a"))["enriched"] is True


# patches


async def no_encoder(message: Any, deadline: float) -> Any:
    raise AssertionError("the encoder was asked")


async def whole(service: Any, replica_of: Any, id: str) -> Any:
    """The stored point of an item."""
    uid, _ = await service.find_stored(id, service.new_context())
    [point] = await replica_of.default.active.get().points([uid])
    return point


@pytest.fixture
def bench(local_graph: Any, tmp_path: Path) -> Callable[..., Any]:
    """A factory: `ItemWrites`, its gateway, and the active index below."""

    @asynccontextmanager
    async def make(recipe: str = "raw") -> AsyncIterator[tuple[ItemWrites, Any, Any]]:
        settings, enhancer = local_graph.local_settings(tmp_path, index={"recipe": recipe}), local_graph.FakeEnhancer()
        graph = local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:3], enhancer=enhancer, settings=settings)
        async with graph as service:
            retriever = service.graph.retriever.__closure__[0].cell_contents.__self__
            yield ItemWrites(service), service, retriever

    return make


async def test_facts_outside_the_text_never_run_the_encoder(bench: Any) -> None:
    async with bench() as (writes, service, retriever):
        await writes.put([A.model_copy(update={"numbers": {"votes": 10.0}})], service.new_context())
        before = await whole(service, retriever, "a")
        service.graph = replace(service.graph, embedder=no_encoder)
        await writes.patch("a", {"numbers": {"votes": 1e6}, "genres": ["War"], "year": 1931, "language": "fr"}, service.new_context())
        after = await whole(service, retriever, "a")
        assert (after.dense["text"] == before.dense["text"]).all()
        expected = item_vector(before.dense["text"], after.payload["item"], service.settings.index.facts)
        assert after.dense["item"] == pytest.approx(expected, abs=1e-6)
        assert not (after.dense["item"] == before.dense["item"]).all()
        # Words that people type are in the text of BM25.
        assert set(after.sparse["bm25"].indices) != set(before.sparse["bm25"].indices)
        with pytest.raises(AssertionError, match="the encoder was asked"):
            await writes.patch("a", {"overview": "Another story."}, service.new_context())


async def test_a_described_item_keeps_its_description_while_that_is_right(bench: Any) -> None:
    async with bench("both") as (writes, service, retriever):
        await writes.put([A], service.new_context())
        assert await writes.enrich_pending() == 1
        before = await whole(service, retriever, "a")
        await writes.patch("a", {"numbers": {"votes": 5.0}}, service.new_context())
        after = await whole(service, retriever, "a")
        assert (after.payload["description"], after.payload["enriched"], after.payload["pending"]) == (
            before.payload["description"],
            True,
            False,
        )
        assert (after.dense["text"] == before.dense["text"]).all()
        assert await writes.enrich_pending() == 0
        # The enhancer reads the genres: what it wrote may be wrong now.
        await writes.patch("a", {"genres": ["War"]}, service.new_context())
        assert (await stored(service, "a"))["pending"] is True
        assert await writes.enrich_pending() == 1
        assert (await stored(service, "a"))["enriched"] is True


async def test_what_waits_for_its_description_goes_on_waiting(bench: Any) -> None:
    async with bench("both") as (writes, service, _):
        await writes.put([A], service.new_context())
        await writes.patch("a", {"numbers": {"votes": 5.0}}, service.new_context())
        assert (await stored(service, "a"))["pending"] is True
        assert await writes.enrich_pending() == 1


async def test_patches_of_one_item_at_once_all_count(bench: Any) -> None:
    async with bench() as (writes, service, _):
        await writes.put([A], service.new_context())
        await asyncio.gather(*(writes.patch("a", {"extra": {f"fact_{n}": str(n)}}, service.new_context()) for n in range(4)))
        assert (await stored(service, "a"))["item"]["extra"] == {f"fact_{n}": str(n) for n in range(4)}


async def test_an_item_deleted_meanwhile_does_not_come_back_by_a_patch(bench: Any) -> None:
    async with bench() as (writes, service, _):
        await writes.put([A], service.new_context())
        ask = service.graph.retriever

        async def deleted_between(message: Any, deadline: float) -> Any:
            if isinstance(message, messages.Change):
                service.graph = replace(service.graph, retriever=ask)
                await writes.delete("a", service.new_context())
            return await ask(message, deadline)

        service.graph = replace(service.graph, retriever=deleted_between)
        with pytest.raises(RequestError, match="no item has the id"):
            await writes.patch("a", {"year": 1999}, service.new_context())


async def test_a_patched_item_of_the_file_outlives_the_next_ingest(bench: Any, local_graph: Any) -> None:
    async with bench() as (writes, service, retriever):
        film = local_graph.demo_films()[0]
        uid, _ = await writes.patch(film.uid("demo"), {"numbers": {"rating": 1.5}}, service.new_context())
        index = retriever.default.active.get()
        [[entry]] = [page async for page in IndexWrites(index).read(0)]
        assert (entry.id, entry.item.numbers["rating"]) == (uid, 1.5)
