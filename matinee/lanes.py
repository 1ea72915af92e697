"""A thread of one's own for calls that must not run at the same time, with two lanes before it: light calls go before heavy ones.

Python can't interrupt a thread, so callers must limit how long a call takes. Does not know what a call does.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from matinee.fair_share import FairShare

T = TypeVar("T")

_SHARE = 0.25
"""The part of the time that heavy calls get while there are always light ones."""


class LaneThread:
    """The thread `name`. Calls of one lane run in the order in which they came."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=self._note_thread)
        self._ident: int | None = None
        self._light: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._heavy: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        # Written by the thread only.
        self._heavy_share = FairShare(_SHARE)
        self._since: float | None = None

    async def run(self, call: Callable[[], T], *, heavy: bool = False) -> T:
        """The result of `call()` in the thread; at once where this is the thread. One that still waits when it is cancelled never runs."""
        if threading.get_ident() == self._ident:
            return call()
        result: Future[T] = Future()
        (self._heavy if heavy else self._light).append((result, call))
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
        if since is not None and time.monotonic() - since > hang_s:
            raise RuntimeError(f"{self._name}: a call has run for more than {hang_s:g} s")

    def _note_thread(self) -> None:
        self._ident = threading.get_ident()

    def _next(self) -> None:
        """One call: each was submitted with one turn of the thread, in which another may go before it."""
        heavy = bool(self._heavy) and (not self._light or self._heavy_share.is_due)
        result, call = (self._heavy if heavy else self._light).popleft()
        if not result.set_running_or_notify_cancel():
            return
        start = self._since = time.monotonic()
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001  its caller gets it
            result.set_exception(error)
        self._since = None
        self._charge(time.monotonic() - start, heavy=heavy)

    def _charge(self, took_s: float, *, heavy: bool) -> None:
        if heavy:
            self._heavy_share.work(took_s)
        elif self._heavy:
            self._heavy_share.wait(took_s)
        else:
            self._heavy_share.reset()
