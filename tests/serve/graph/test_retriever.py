"""The Retriever on a real embedded index: batches with errors in them, versions that come while it runs, and a store that fails."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.errors import (
    AmbiguousTitleError,
    DeadlineError,
    FingerprintError,
    IndexAbsentError,
    IndexLockedError,
    IndexUnavailableError,
    MatineeError,
    NotFoundError,
)
from matinee.filters import ItemFilter
from matinee.index import active
from matinee.index.factory import open_store
from matinee.index.item_vector import item_vector
from matinee.index.types import ITEM, TEXT, Point, Search, SparseQuery
from matinee.items import item_uid
from matinee.recommend.queries import Example, ExampleQuery, RankedItems, TextQuery
from matinee.settings.index import FactWeights
from serve.graph import messages, open_catalogue
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.gateway import Gateway
from serve.graph.health import Health
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until_async

LATER = 86_400.0


class Bench:
    """A Retriever over its own home."""

    def __init__(self, graph: Any, home: Path) -> None:
        self.graph = graph
        self.settings = graph.local_settings(home)
        self.sink = MemorySink()
        self.retriever: RetrieverReplica | None = None

    async def build(self, films: int) -> None:
        await self.graph.build_index(self.settings, self.graph.demo_films()[:films])

    async def start(self, **more: Any) -> RetrieverReplica:
        self.retriever = RetrieverReplica(self.settings, Metrics(self.sink), **({"watch_s": 0.01} | more))
        await self.retriever.start()
        return self.retriever

    async def ask(self, *units: Any) -> list[Any]:
        assert self.retriever is not None
        return await self.retriever.call([WireMessage(unit, LATER) for unit in units])

    async def version(self) -> str | None:
        [status] = await self.ask(messages.ReadStatus())
        return status.manifest and str(status.manifest.version)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(HANG_S):
            while not await condition():  # noqa: ASYNC110  the watcher tells nobody
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(local_graph: Any, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(local_graph, tmp_path)
    yield bench
    if bench.retriever is not None:
        await bench.retriever.close()


def like(title: str, **more: Any) -> messages.Rank:
    return messages.Rank(ExampleQuery((Example(title=title),), **more))


async def test_a_batch_is_answered_unit_by_unit_errors_included(bench: Bench) -> None:
    await bench.build(6)
    await bench.start()
    words = messages.Rank(TextQuery("dream", None, "sparse", 2))
    answers = await bench.ask(
        like("Nosferatu", k=2), like("No Such Film"), messages.Fetch(("x",)), words, messages.Delete("x"), like("The Kid", k=1)
    )
    assert isinstance(answers[0], RankedItems)
    assert answers[0].count == 2
    assert isinstance(answers[1], NotFoundError)
    assert answers[2] == [None]
    assert isinstance(answers[3], RankedItems)
    assert answers[4] is None
    assert answers[5].likes[0]["title"] == "The Kid"


async def test_a_large_index_may_estimate_its_facets_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.build(6)
    limited = bench.settings.index.model_copy(update={"exact_facets_below": 6})
    bench.settings = bench.settings.model_copy(update={"index": limited})
    index = (await bench.start()).default.active.get()
    facets, asked = index.facets, []

    async def watched(*args: Any, exact: bool, **more: Any) -> Any:
        asked.append(exact)
        return await facets(*args, exact=exact, **more)

    monkeypatch.setattr(index, "facets", watched)
    [counted] = await bench.ask(messages.Facets(ItemFilter()))
    assert (counted.count, counted.approximate, set(asked)) == (6, True, {False})
    assert counted.values.keys() == {"kind", "genres", "language"}


async def test_a_slow_query_delays_only_those_like_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.build(6)
    retriever = await bench.start()
    slow = asyncio.Event()
    index = retriever.default.active.get()
    search, facets = index.search, index.facets

    async def held(searches: Any) -> Any:
        if any(one.filter != ItemFilter() for one in searches):
            await slow.wait()
        return await search(searches)

    async def held_facets(*args: Any, **more: Any) -> Any:
        await slow.wait()
        return await facets(*args, **more)

    monkeypatch.setattr(index, "search", held)
    monkeypatch.setattr(index, "facets", held_facets)
    filtered = ItemFilter(genres=("Comedy",))
    slow_ones = [like("The Kid", filter=filtered), messages.Facets()]
    quick = [like("The Kid"), messages.Rank(TextQuery("robots", None, "sparse")), messages.ReadStatus(), like("nothing like this")]
    answered: dict[int, object] = {}
    async for pairs in retriever.stream([WireMessage(unit, LATER) for unit in (*slow_ones, *quick)]):
        answered |= dict(pairs)
        if len(answered) == len(quick):
            assert set(answered) == {2, 3, 4, 5}
            slow.set()
    assert set(answered) == set(range(6))
    assert isinstance(answered[0], RankedItems)
    assert isinstance(answered[5], NotFoundError)


async def test_a_light_search_goes_before_heavy_ones_that_came_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rankings by a hundred examples each, as far as a request may go, and then one search: the engine's calls are its own."""
    await bench.build(1)
    retriever = await bench.start()
    index = retriever.default.active.get()
    vectors = np.random.default_rng(0).standard_normal((2000, index.manifest.dimensions[TEXT])).astype(np.float32)
    stored = {"item": {"title": "x"}, "title": "x", "deleted": False}
    await index.upsert(
        [Point(str(uuid.UUID(int=n)), stored, {TEXT: v, ITEM: item_vector(v, {}, FactWeights())}) for n, v in enumerate(vectors)]
    )
    examples = [Example(id=str(uuid.UUID(int=n))) for n in range(100)]
    heavy = messages.Rank(ExampleQuery(tuple(examples[:50]), tuple(examples[50:]), strategy="best", k=100))
    light = messages.Rank(TextQuery("robots", None, "sparse"))
    calls: list[list[str]] = []
    search = index._search

    def seen(searches: Sequence[Search]) -> object:
        calls.append(["light" if isinstance(one.query, SparseQuery) else "heavy" for one in searches])
        return search(searches)

    monkeypatch.setattr(index, "_search", seen)
    client = RetrieverClient(send_to(retriever), bench.settings, Metrics(bench.sink))
    heavy_ones = [asyncio.create_task(client(heavy, time.monotonic() + LATER)) for _ in range(20)]
    await until_async(lambda: calls)
    await client(light, time.monotonic() + LATER)
    assert not all(one.done() for one in heavy_ones)
    assert {result.count for result in await asyncio.gather(*heavy_ones)} == {100}
    assert calls.count(["heavy"]) == 20, "none waits for more than one of them"
    assert calls.index(["light"]) < 15


async def test_heavy_searches_have_a_share_of_the_time(bench: Bench) -> None:
    await bench.build(6)
    retriever = await bench.start()
    index = retriever.default.active.get()
    done = False

    async def light() -> None:
        while not done:
            await index.present([])

    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(light())
        for _ in range(3):
            assert await index.facets("genres")
        done = True


@pytest.mark.parametrize("part", ["rank", "index-edge"])
async def test_a_thread_that_hangs_makes_the_replica_ill(bench: Bench, part: str, tmp_path: Path) -> None:
    bench.settings = bench.graph.local_settings(tmp_path, index={"hang_s": 0.05})
    await bench.build(1)
    retriever = await bench.start()
    gate = threading.Event()
    thread = retriever.default.thread if part == "rank" else retriever.default.active.get()._thread  # type: ignore[attr-defined]

    def illness() -> str:
        try:
            retriever.check_health()
        except RuntimeError as error:
            return str(error)
        return ""

    # On a busy machine a call of the start, or of the watcher, may be ill for a moment, too.
    await until_async(lambda: not illness())
    hangs = asyncio.create_task(thread.run(lambda: gate.wait(HANG_S)))
    await until_async(lambda: illness() == f"{part}: a call has run for more than 0.05 s")
    gate.set()
    assert await hangs
    await until_async(lambda: not illness())


async def test_a_write_goes_to_its_end_when_its_caller_gives_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.build(6)
    retriever = await bench.start()
    begun, go_on = asyncio.Event(), asyncio.Event()
    delete = retriever.default.active.delete

    async def slow(id: str) -> Any:
        begun.set()
        await go_on.wait()
        return await delete(id)

    monkeypatch.setattr(retriever.default.active, "delete", slow)
    [(id, _), *_] = (await bench.ask(messages.Page(1)))[0][0]
    call = asyncio.create_task(retriever.call([WireMessage(messages.Delete(id), LATER)]))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()

    async def gone() -> bool:
        return await bench.ask(messages.Fetch((id,))) == [[None]]

    await bench.until(gone)


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


async def absence(bench: Bench) -> tuple[type[Exception], list[type[Exception]]]:
    """What a gateway raises and why it is not ready, of what the Retriever reports while it has no version."""

    async def part(message: Any, deadline: float) -> Any:
        [answer] = await bench.ask(message)
        return answer

    gateway = Gateway(bench.settings, Graph(part, part, None, {}), Metrics(MemorySink()))
    with pytest.raises(MatineeError) as raised:
        await gateway.recipe(gateway.new_context())
    return raised.type, [type(error) for error in await Health(gateway).unready(gateway.new_context())]


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


async def test_an_ambiguous_title_carries_its_candidates(bench: Bench) -> None:
    films = [film for film in bench.graph.demo_films() if film.title == "Beauty and the Beast"]
    await bench.graph.build_index(bench.settings, films)
    await bench.start()
    [answer] = await bench.ask(like("Beauty and the Beast"))
    assert isinstance(answer, AmbiguousTitleError)
    assert len(answer.candidates) == len(films)


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
