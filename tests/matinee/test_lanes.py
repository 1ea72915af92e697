"""A thread with two lanes, and the brief calls that need not go there."""

import asyncio
import threading

import pytest

from matinee.lanes import LaneThread
from tests.waiting import HANG_S

HERE = threading.current_thread().name


class Lanes(LaneThread):
    """One whose time goes on by `call`s alone."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__("lane", lambda: self.now)

    async def thread_of(self, took_s: float = 0.0, *, brief: bool = True) -> str:
        """Where a call of `took_s` seconds runs."""

        def call() -> str:
            self.now += took_s
            return threading.current_thread().name

        return await self.run(call, brief=brief)

    async def become_brief(self) -> None:
        while await self.thread_of() != HERE:
            pass


async def test_brief_calls_run_where_they_are_made_once_some_were_brief() -> None:
    lanes = Lanes()
    assert await lanes.thread_of() != HERE, "nothing is known of the first"
    await lanes.become_brief()
    assert await lanes.thread_of() == HERE
    assert await lanes.thread_of(brief=False) != HERE
    await lanes.close()


async def test_long_calls_send_the_next_ones_to_the_thread() -> None:
    lanes = Lanes()
    await lanes.become_brief()
    assert await lanes.thread_of(took_s=0.01) == HERE, "one of them is no rule"
    assert await lanes.thread_of(took_s=0.1) == HERE, "nobody knew"
    assert await lanes.thread_of() != HERE
    await lanes.become_brief()
    for _ in range(20):
        await lanes.thread_of(took_s=0.1, brief=False)
    assert await lanes.thread_of() == HERE, "others may take as long as they like"
    await lanes.close()


async def test_a_brief_call_waits_for_what_runs_and_for_what_waits() -> None:
    lanes, gate, begun = Lanes(), threading.Event(), threading.Event()
    await lanes.become_brief()

    def wait() -> bool:
        begun.set()
        return gate.wait(HANG_S)

    running = asyncio.create_task(lanes.run(wait))
    await asyncio.to_thread(begun.wait, HANG_S)
    brief = asyncio.create_task(lanes.thread_of())
    await asyncio.sleep(0)
    assert not brief.done()
    gate.set()
    assert await running
    assert await brief != HERE
    await lanes.close()


async def test_a_call_within_a_call_runs_at_once_in_either_thread() -> None:
    lanes = Lanes()

    def inner() -> str:
        try:
            lanes.run(lambda: threading.current_thread().name, heavy=True).send(None)
        except StopIteration as done:
            return str(done.value)
        raise AssertionError("it waits")

    assert await lanes.run(inner) != HERE
    await lanes.become_brief()
    assert await lanes.run(inner, brief=True) == HERE
    await lanes.close()


async def test_a_brief_call_that_raises_leaves_the_thread_free() -> None:
    lanes = Lanes()
    await lanes.become_brief()
    with pytest.raises(ZeroDivisionError):
        await lanes.run(lambda: 1 // 0, brief=True)
    assert await lanes.thread_of() == HERE
    assert await lanes.thread_of(brief=False) != HERE
    lanes.check_health(0.0)
    await lanes.close()
