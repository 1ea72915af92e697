"""The clocks of other machines: what can be said of them from one question and its answer, and what is exported."""

import asyncio
import time

import pytest

from serve.errors import UnavailableError
from serve.graph.clock_skew import ClockWatch, skew_s
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink


@pytest.mark.parametrize(("there", "skew"), [(100.0, 0.0), (101.0, 0.0), (104.0, 0.0), (120.0, 16.0), (84.0, -16.0)], ids=str)
def test_what_the_way_may_explain_is_no_skew(there: float, skew: float) -> None:
    assert skew_s(100.0, there, 104.0) == skew


async def test_a_clock_that_is_ahead_is_exported_and_one_that_is_silent_hides_no_other() -> None:
    sink = MemorySink()
    asked = asyncio.Event()

    async def ahead() -> float:
        return time.time() + 16

    async def silent() -> float:
        raise UnavailableError("retriever is not available now")

    async def right() -> float:
        asked.set()
        return time.time()

    watch = ClockWatch({"retriever": silent, "embedder": ahead, "enhancer": right}, Metrics(sink))
    watch.start()
    await asked.wait()
    while ("matinee_clock_skew_seconds", (("part", "enhancer"),)) not in sink.values:  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0)
    await watch.stop()
    skews = {dict(tags)["part"]: value for (name, tags), value in sink.values.items() if name == "matinee_clock_skew_seconds"}
    assert set(skews) == {"embedder", "enhancer"}
    assert 10 < skews["embedder"] <= 16
    assert skews["enhancer"] == 0
