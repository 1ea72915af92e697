"""A thread of one's own for calls that must not run at the same time, with two lanes before it: light calls go before heavy ones.

A brief call need not go there: while the thread is idle it runs where it was made. To wake a thread and to be woken by it takes longer.
Python can't interrupt a thread, so callers must limit how long a call takes. Does not know what a call does.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from matinee.fair_share import FairShare

T = TypeVar("T")

_SHARE = 0.25
"""The part of the time that heavy calls get while there are always light ones."""
_BRIEF_S = 0.005
"""How long brief calls may take on average, so that the next one runs where it was made: the event loop stands still meanwhile."""
_BRIEF_WEIGHT = 0.2
"""Weight of the newest brief call in their average."""


class LaneThread:
    """The thread `name`. Calls of one lane run in the order in which they came."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        # Held while a call runs, by the thread in which it does.
        self._running = threading.Lock()
        self._runner: int | None = None
        # As if they had been too long: the first ones read files that are not in memory yet.
        self._brief_s = 4 * _BRIEF_S
        self._light: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._heavy: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        # Written by the thread only.
        self._heavy_share = FairShare(_SHARE)
        self._since: float | None = None

    @property
    def runs_here(self) -> bool:
        """Whether this is called within one of its calls."""
        return threading.get_ident() == self._runner

    async def run(self, call: Callable[[], T], *, heavy: bool = False, brief: bool = False) -> T:
        """The result of `call()` in the thread; at once where a call makes another. One that still waits when it is cancelled never runs.

        `brief`: it may run at once in the caller's thread, where nothing else runs or waits, and where the brief calls before took no time.
        """
        if self.runs_here:
            return call()
        if brief and self._brief_s <= _BRIEF_S and not (self._light or self._heavy) and self._running.acquire(blocking=False):
            try:
                return self._timed(call, brief=True)
            finally:
                self._running.release()
        result: Future[T] = Future()
        (self._heavy if heavy else self._light).append((result, partial(self._timed, call, brief=brief)))
        self._thread.submit(self._next)
        return await asyncio.wrap_future(result)

    async def close(self, last: Callable[[], None] = lambda: None) -> None:
        """End the thread after the calls that wait, and after `last()`."""
        # One turn was submitted for each call, and this comes after all of them.
        ended = self._thread.submit(last)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(ended))

    def check_health(self, hang_s: float) -> None:
        """Raises `RuntimeError` where one call has run for more than `hang_s` seconds."""
        since = self._since
        if since is not None and self._clock() - since > hang_s:
            raise RuntimeError(f"{self._name}: a call has run for more than {hang_s:g} s")

    def _timed(self, call: Callable[[], T], *, brief: bool) -> T:
        self._runner, start = threading.get_ident(), self._clock()
        self._since = start
        try:
            return call()
        finally:
            self._runner = self._since = None
            if brief:
                took_s = self._clock() - start
                self._brief_s += _BRIEF_WEIGHT * (took_s - self._brief_s)

    def _next(self) -> None:
        """One call: each was submitted with one turn of the thread, in which another may go before it."""
        heavy = bool(self._heavy) and (not self._light or self._heavy_share.is_due)
        result, call = (self._heavy if heavy else self._light).popleft()
        if not result.set_running_or_notify_cancel():
            return
        try:
            with self._running:
                start = self._clock()
                answer = call()
        except BaseException as error:  # noqa: BLE001  its caller gets it
            result.set_exception(error)
        else:
            # With the thread free again: the caller's next brief call may run at once.
            result.set_result(answer)
        self._charge(self._clock() - start, heavy=heavy)

    def _charge(self, took_s: float, *, heavy: bool) -> None:
        if heavy:
            self._heavy_share.work(took_s)
        elif self._heavy:
            self._heavy_share.wait(took_s)
        else:
            self._heavy_share.reset()
