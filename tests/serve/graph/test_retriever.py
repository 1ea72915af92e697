"""The Retriever on a real embedded index: batches with errors in them, versions that come while it runs, and a store that fails."""

import asyncio
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.errors import (
    AmbiguousTitleError,
    NotFoundError,
)
from matinee.filters import ItemFilter
from matinee.index.item_vector import item_vector
from matinee.index.types import ITEM, TEXT, Point, Search, SparseQuery
from matinee.recommend.queries import Example, ExampleQuery, RankedItems, TextQuery
from matinee.settings.index import FactWeights
from serve.graph import messages
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.serve.graph.retriever_bench import LATER, Bench, like
from tests.waiting import HANG_S, until_async


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


async def test_an_ambiguous_title_carries_its_candidates(bench: Bench) -> None:
    films = [film for film in bench.graph.demo_films() if film.title == "Beauty and the Beast"]
    await bench.graph.build_index(bench.settings, films)
    await bench.start()
    [answer] = await bench.ask(like("Beauty and the Beast"))
    assert isinstance(answer, AmbiguousTitleError)
    assert len(answer.candidates) == len(films)
