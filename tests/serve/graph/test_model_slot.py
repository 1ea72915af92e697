"""The model slot: answers go on while a model is replaced, and a bad replacement changes nothing."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from matinee.settings.models import EmbedderSettings
from serve.graph.model_slot import ModelSlot, apply_update
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.serve.graph.echo import Echo, Wish
from tests.waiting import HANG_S, until


@dataclass
class Loader:
    """Loads an `Echo`; names in `held` wait until they are released, those in `away` fail."""

    held: dict[str, threading.Event] = field(default_factory=dict)
    loading: dict[str, threading.Event] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    away: set[str] = field(default_factory=set)

    def hold(self, name: str) -> None:
        self.held[name], self.loading[name] = threading.Event(), threading.Event()

    def __call__(self, wish: Wish) -> Echo:
        self.loads.append(wish.name)
        if wish.name in self.held:
            self.loading[wish.name].set()
            assert self.held[wish.name].wait(HANG_S)
        if wish.breaks or wish.name in self.away:
            raise OSError(f"no file for {wish.name}")
        return Echo(wish.name)


class Bench:
    """A slot with what it told the world."""

    def __init__(self, retry_s: float = 60) -> None:
        self.loader = Loader()
        self.announced: list[str] = []
        self.sink = MemorySink()
        self.slot: ModelSlot[Echo, Wish] = ModelSlot(
            "part", Wish("one"), self.loader, lambda model: self.announced.append(model.name), Metrics(self.sink), retry_s=retry_s
        )

    async def settled(self) -> None:
        """All swaps that were begun are over."""
        for thread in threading.enumerate():
            if thread.name == "part-swap":
                await asyncio.to_thread(thread.join, HANG_S)

    async def name(self) -> str:
        return await self.slot.run(lambda model: model.name)

    def metric(self, name: str) -> float:
        return self.sink.values.get((name, (("part", "part"),)), 0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for event in bench.loader.held.values():
        event.set()
    # What failed is tried again only while it is wanted: nothing of this test goes on into the next ones.
    bench.slot.update(Wish("one"))


async def test_the_first_model_is_loaded_timed_and_announced(bench: Bench) -> None:
    assert await bench.name() == "one"
    assert bench.announced == ["one"]
    assert ("matinee_model_load_seconds", (("part", "part"),)) in bench.sink.values


async def test_a_first_model_that_fails_stops_the_replica() -> None:
    with pytest.raises(OSError, match="no file"):
        ModelSlot("part", Wish("one", breaks=True), Loader(), lambda _: None, Metrics(MemorySink()))


async def test_answers_go_on_while_the_next_model_loads(bench: Bench) -> None:
    bench.loader.hold("two")
    bench.slot.update(Wish("two"))
    await asyncio.to_thread(bench.loader.loading["two"].wait, HANG_S)
    assert [await bench.name() for _ in range(5)] == ["one"] * 5
    bench.loader.held["two"].set()
    await bench.settled()
    assert await bench.name() == "two"
    assert bench.announced == ["one", "two"]


async def test_work_under_way_keeps_its_model(bench: Bench) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(model: Echo) -> str:
        started.set()
        assert go_on.wait(HANG_S)
        return model.name

    work = asyncio.create_task(bench.slot.run(slow))
    await asyncio.to_thread(started.wait, HANG_S)
    bench.slot.update(Wish("two"))
    await bench.settled()
    go_on.set()
    assert await work == "one"
    assert await bench.name() == "two"


async def test_a_load_that_fails_keeps_the_old_model_and_says_so(bench: Bench) -> None:
    bench.slot.update(Wish("bad", breaks=True))
    await bench.settled()
    assert await bench.name() == "one"
    assert bench.slot.trouble == "the last model update failed: no file for bad"
    assert bench.metric("matinee_model_swap_failures") == 1
    assert bench.announced == ["one"]


async def test_a_load_that_fails_is_tried_again_while_it_is_wanted() -> None:
    bench = Bench(retry_s=0.01)
    bench.loader.away.add("two")
    bench.slot.update(Wish("two"))
    await asyncio.to_thread(until, lambda: bench.metric("matinee_model_swap_failures") > 1)
    assert (await bench.name(), bench.slot.trouble) == ("one", "the last model update failed: no file for two")
    bench.loader.away.clear()
    await asyncio.to_thread(until, lambda: bench.announced == ["one", "two"])
    await bench.settled()
    assert (await bench.name(), bench.slot.trouble) == ("two", None)
    loads = len(bench.loader.loads)
    bench.slot.update(Wish("three"))
    await bench.settled()
    assert bench.loader.loads[loads:] == ["three"]


async def test_what_is_no_longer_wanted_is_not_tried_again() -> None:
    bench = Bench(retry_s=0.01)
    bench.slot.update(Wish("bad", breaks=True))
    await asyncio.to_thread(until, lambda: bench.metric("matinee_model_swap_failures") > 1)
    bench.slot.update(Wish("one"))
    await bench.settled()
    loads = len(bench.loader.loads)
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer) and timer.interval < 1:
            await asyncio.to_thread(timer.join, HANG_S)
    await bench.settled()
    assert (len(bench.loader.loads), bench.slot.trouble) == (loads, None)


async def test_the_next_good_update_clears_the_trouble(bench: Bench) -> None:
    bench.slot.update(Wish("bad", breaks=True))
    await bench.settled()
    bench.slot.update(Wish("two"))
    await bench.settled()
    assert (await bench.name(), bench.slot.trouble) == ("two", None)


async def test_going_back_to_the_model_that_lives_loads_nothing(bench: Bench) -> None:
    bench.slot.update(Wish("bad", breaks=True))
    await bench.settled()
    bench.slot.update(Wish("one"))
    await bench.settled()
    assert (await bench.name(), bench.slot.trouble) == ("one", None)
    assert bench.loader.loads == ["one", "bad"]


async def test_the_same_settings_again_load_nothing(bench: Bench) -> None:
    bench.slot.update(Wish("one"))
    await bench.settled()
    assert bench.loader.loads == ["one"]


async def test_of_several_updates_the_last_one_stays_and_none_between_goes_live(bench: Bench) -> None:
    bench.loader.hold("two")
    bench.slot.update(Wish("two"))
    await asyncio.to_thread(bench.loader.loading["two"].wait, HANG_S)
    bench.slot.update(Wish("three"))
    bench.slot.update(Wish("four"))
    bench.loader.held["two"].set()
    await bench.settled()
    assert await bench.name() == "four"
    assert bench.announced == ["one", "four"]
    assert bench.loader.loads == ["one", "two", "four"]


async def test_an_update_taken_back_while_it_loads_never_goes_live(bench: Bench) -> None:
    bench.loader.hold("two")
    bench.slot.update(Wish("two"))
    await asyncio.to_thread(bench.loader.loading["two"].wait, HANG_S)
    bench.slot.update(Wish("one"))
    bench.loader.held["two"].set()
    await bench.settled()
    assert await bench.name() == "one"
    assert bench.announced == ["one"]


async def test_work_that_fails_raises_for_its_caller_only(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        await bench.slot.run(lambda _: 1 / 0)
    assert await bench.name() == "one"


def test_an_update_is_a_checked_part_of_the_settings() -> None:
    base = EmbedderSettings()
    assert apply_update(base, {"precision": "fp32"}) == EmbedderSettings(precision="fp32")
    assert apply_update(base, {}) == base
    for bad in ({"precision": "fp8"}, {"colour": "red"}):
        with pytest.raises(ValueError, match="validation error"):
            apply_update(base, bad)
