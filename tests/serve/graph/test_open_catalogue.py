"""One catalogue that is open: versions that come while it runs, a store that fails, and an index that another replica gives up."""

import asyncio
from typing import Any

import pytest

from matinee.errors import (
    DeadlineError,
    FingerprintError,
    IndexAbsentError,
    IndexLockedError,
    IndexUnavailableError,
    MatineeError,
)
from matinee.index import active
from matinee.index.factory import open_store
from matinee.items import item_uid
from matinee.recommend.queries import Example, ExampleQuery, RankedItems
from serve.graph import messages, open_catalogue
from serve.graph.wire import WireMessage
from tests.serve.graph.retriever_bench import LATER, Bench, absence, like


async def test_a_unit_whose_time_is_over_is_not_worked_on(bench: Bench) -> None:
    await bench.build(3)
    retriever = await bench.start()
    batch = [WireMessage(like("The Kid"), -1), WireMessage(messages.ReadStatus(), LATER), WireMessage(messages.Delete("x"), -1)]
    late, status, also_late = await retriever.call(batch)
    assert isinstance(late, DeadlineError)
    assert isinstance(also_late, DeadlineError)
    assert status.items == 3


async def test_without_an_index_it_is_well_and_says_so(bench: Bench) -> None:
    await bench.start()
    status, *others = await bench.ask(
        messages.ReadStatus(),
        like("x"),
        messages.Fetch(("x",)),
        messages.Page(1),
        messages.Suggest("x", 1),
        messages.Facets(),
        messages.Pending(1, after=item_uid("films", "x")),
        messages.Delete("x"),
    )
    assert status == messages.IndexStatus()
    assert await absence(bench) == (IndexAbsentError, [IndexAbsentError])
    assert all(isinstance(answer, IndexAbsentError) for answer in others)


async def test_it_follows_new_versions_and_rollbacks(bench: Bench) -> None:
    await bench.start()
    await bench.build(2)
    await bench.until(bench.version)
    first = await bench.version()
    await bench.build(4)

    async def moved() -> bool:
        return await bench.version() != first

    await bench.until(moved)
    [status] = await bench.ask(messages.ReadStatus())
    assert (status.items, status.previous) == (4, first)
    store = open_store(bench.settings)
    await store.rollback()
    await store.close()

    async def back() -> bool:
        return await bench.version() == first

    await bench.until(back)
    active = {dict(tags)["version"]: value for (name, tags), value in bench.sink.values.items() if name == "matinee_index_info"}
    assert active == {first: 1, status.manifest.version: 0}


async def test_queries_during_switches_are_all_answered(bench: Bench) -> None:
    await bench.build(3)
    await bench.start()
    stop, answers = asyncio.Event(), []

    async def client() -> None:
        while not stop.is_set():
            answers.extend(await bench.ask(like("The Kid", k=1), messages.Page(2), messages.ReadStatus()))

    clients = [asyncio.create_task(client()) for _ in range(3)]
    first = await bench.version()
    for films in (4, 5):
        before = await bench.version()
        await bench.build(films)

        async def moved(before: str | None = before) -> bool:
            return await bench.version() != before

        await bench.until(moved)
    stop.set()
    await asyncio.gather(*clients)
    assert await bench.version() != first
    assert [answer for answer in answers if isinstance(answer, MatineeError)] == []


async def test_vectors_of_another_encoder_are_refused_alone(bench: Bench) -> None:
    await bench.build(3)
    await bench.start()
    call = ExampleQuery((Example(title="The Kid"),), k=1)
    good, bad = await bench.ask(messages.Rank(call), messages.Rank(call, "f" * 64))
    assert isinstance(good, RankedItems)
    assert isinstance(bad, FingerprintError)
    [write] = await bench.ask(messages.Write((), "f" * 64, "raw"))
    assert isinstance(write, FingerprintError)


class FailingStore:
    """A store that raises, until it is told not to."""

    def __init__(self, store: Any) -> None:
        self.store, self.error = store, None

    async def current(self) -> Any:
        if self.error is not None:
            raise self.error
        return await self.store.current()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.parametrize("error", [IndexUnavailableError("the disk is away"), OSError("a bug of ours")])
async def test_a_store_that_fails_is_trouble_and_answers_go_on(bench: Bench, error: Exception) -> None:
    await bench.build(3)
    store: Any = FailingStore(open_store(bench.settings))
    retriever = await bench.start(store=store)
    store.error = error

    async def in_trouble() -> bool:
        return retriever.trouble is not None

    await bench.until(in_trouble)
    [answer] = await bench.ask(like("The Kid", k=1))
    assert isinstance(answer, RankedItems)
    store.error = None

    async def well() -> bool:
        return retriever.trouble is None

    await bench.until(well)


async def test_a_store_that_is_away_at_the_start_is_waited_for(bench: Bench) -> None:
    await bench.build(2)
    store: Any = FailingStore(open_store(bench.settings))
    store.error = IndexUnavailableError("the server is not up yet")
    await bench.start(store=store)
    [status] = await bench.ask(messages.ReadStatus())
    assert (status.manifest, status.trouble) == (None, "the server is not up yet")
    assert await absence(bench) == (IndexUnavailableError, [IndexUnavailableError])
    for answer in await bench.ask(messages.Facets(), like("The Matrix")):
        assert isinstance(answer, IndexUnavailableError), "there may be an index, for all that is known"
        assert str(answer) == "the server is not up yet"
    store.error = None
    await bench.until(bench.version)


async def test_a_switch_that_fails_half_way_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.build(2)
    retriever = await bench.start()
    first, failures = await bench.version(), [IndexUnavailableError("the disk is full")]
    real = active._carry_over

    async def carry_over(old: Any, fresh: Any) -> None:
        if failures:
            raise failures.pop()
        await real(old, fresh)

    monkeypatch.setattr(active, "_carry_over", carry_over)
    await bench.build(3)

    async def moved() -> bool:
        return await bench.version() != first

    await bench.until(moved)
    assert failures == []
    assert retriever.trouble is None


async def test_calls_wait_for_the_index_that_the_replica_before_gives_up(bench: Bench) -> None:
    await bench.build(2)
    before = await bench.start()
    await bench.start()
    asked = asyncio.create_task(bench.ask(messages.ReadStatus(), messages.Facets(), like(bench.graph.demo_films()[0].title)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asked.done()
    await before.close()
    [status, counted, answer] = await asked
    assert (status.items, counted.count, status.trouble) == (2, 2, None)
    assert answer.count == 1


async def test_an_index_that_another_keeps_is_said_to_be_locked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_catalogue, "HANDOVER_S", 0)
    await bench.build(2)
    before = await bench.start()
    await bench.start()
    [status, *answers] = await bench.ask(messages.ReadStatus(), messages.Facets(), messages.Delete("x"), like("The Matrix"))
    assert status.manifest is None
    assert "another process" in status.trouble
    assert await absence(bench) == (IndexLockedError, [IndexLockedError])
    assert [type(answer) for answer in answers] == [IndexLockedError] * 3
    await before.close()

    async def opened() -> bool:
        return await bench.version() is not None

    await bench.until(opened)


async def test_after_close_the_path_is_free(bench: Bench) -> None:
    await bench.build(2)
    retriever = await bench.start()
    await retriever.close()
    bench.retriever = None
    assert (await bench.start()).trouble is None


async def test_something_that_is_no_unit_is_a_bug(bench: Bench) -> None:
    await bench.build(2)
    await bench.start()
    with pytest.raises(TypeError, match="not a message"):
        await bench.ask("nonsense")
