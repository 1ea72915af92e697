"""Waiting for what other processes and threads do: the one place of the tests that polls."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from matinee.errors import DeadlineError, OverloadedError

# Of every wait in the tests. It ends a hang, and must never judge how quick a CPU is: five times the longest wait seen on a slow machine.
HANG_S = 1200


def until(condition: Callable[[], Any], what: str | Callable[[], object] = "", seconds: float = HANG_S, *, pause_s: float = 0.1) -> Any:
    """The first true value of `condition`; fails where there is none in time, with `what`, asked only then where it is a function.

    A condition that can tell that waiting is in vain asserts it. One that costs much is asked with longer pauses.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(pause_s)
    return value


async def until_async(condition: Callable[[], Any], what: str = "", seconds: float = HANG_S) -> Any:
    """`until` for a test in an event loop, which goes on meanwhile."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.005)
    return value


async def until_late(call: Callable[[float], Awaitable[Any]], begun: Callable[[], Any]) -> None:
    """`call(deadline)` with ever more time, until its work has begun before it was late: on a slow machine the first one may not begin."""
    patience = 0.3
    while not begun():
        # Late in the queue, or late in its batch.
        with pytest.raises((DeadlineError, OverloadedError)):
            await call(time.monotonic() + patience)
        patience *= 2
