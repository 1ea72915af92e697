"""A part that has no replica while nobody uses it: what its callers get meanwhile, and what brings a replica back.

A call to such a part would wait in Ray's queue until its deadline, and end there before a replica is up. Here its caller gets an answer at
once, and one call of the gateway's own waits for the replica. Does not know Ray (`serve.graph.handles`).
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from matinee.errors import DeadlineError, MatineeError
from serve.errors import StartingError
from serve.graph.messages import Describe, Embed, Json

log = logging.getLogger(__name__)

CHECKED_S = 1.0
"""How long a count of the replicas holds for calls. A count costs a call to Serve's controller."""
COUNT_S = 5.0
"""Longest wait for a count. After it, a part is said to run."""
START_S = 1800.0
"""Longest wait for a replica: a new node with a GPU and its image may take many minutes. After that, the next message starts another."""
FIRST_GUESS_S = 60.0
"""How long the first start is said to take. Later ones are said to take as long as the last one."""

Model = TypeVar("Model", Embed, Describe)
Result = TypeVar("Result")
ModelClient = Callable[[Model, float], Coroutine[object, None, Result]]


class Standby:
    """Whether one of a part's replicas runs, and the call that starts one.

    `count` counts the replicas that run. `start` is a call to the part that returns once one has answered it.
    """

    def __init__(self, part: str, model: str, count: Callable[[], Awaitable[int]], start: Callable[[], Awaitable[object]]) -> None:
        self._part = part
        self._model = model
        self._count = count
        self._start = start
        self._counting = asyncio.Lock()
        self._counted: tuple[float, bool] = float("-inf"), True
        self._starting: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._takes_s = FIRST_GUESS_S
        self._trouble: str | None = None

    def guard(self, client: ModelClient[Model, Result], fallback: ModelClient[Model, Result] | None = None) -> ModelClient[Model, Result]:
        """A client of the part that raises `StartingError` while no replica runs. `fallback` takes what is not bulk meanwhile."""

        async def call(message: Model, deadline: float) -> Result:
            try:
                if await self.runs(CHECKED_S):
                    return await client(message, deadline)
            except DeadlineError:
                # The last replica may have gone since it was counted, and the call has waited for the next one.
                if await self.runs():
                    raise
            self.start()
            if fallback is not None and not message.bulk and deadline > time.monotonic():
                return await fallback(message, deadline)
            raise self._error()

        return call

    def only_running(self, ask: Callable[[], Awaitable[Result]]) -> Callable[[], Awaitable[Result]]:
        """`ask`, which raises `StartingError` while no replica runs, and starts none."""

        async def call() -> Result:
            if not await self.runs():
                raise self._error()
            return await ask()

        return call

    def info(self, ask: Callable[[], Awaitable[Json]]) -> Callable[[], Awaitable[Json]]:
        """What the part reports of itself; while no replica runs, that its model is not loaded. Starts none."""

        async def report() -> Json:
            if await self.runs():
                return await ask()
            return {"model": self._model, "loaded": False, "trouble": self._trouble}

        return report

    async def runs(self, within_s: float = 0.0) -> bool:
        """Whether a replica runs, or ran at most `within_s` seconds ago. While nobody knows, it is said to run: a call will tell."""
        async with self._counting:
            at, runs = self._counted
            if time.monotonic() - at > within_s:
                try:
                    async with asyncio.timeout(COUNT_S):
                        runs = await self._count() > 0
                except (MatineeError, TimeoutError) as error:
                    log.info("the replicas of the %s could not be counted: %s", self._part, error or "no answer in time")
                    runs = True
                self._counted = time.monotonic(), runs
            return runs

    def start(self) -> None:
        """Start a replica, if none is starting for this gateway."""
        if self._starting is None or self._starting.done():
            self._started_at = time.monotonic()
            self._starting = asyncio.create_task(self._wait_started(), name=f"start the {self._part}")

    async def _wait_started(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                await self._start()
        except (MatineeError, TimeoutError) as error:
            self._trouble = str(error) or f"no replica within {START_S:g} s: is there a node for it?"
            log.warning("%s: no replica has started: %s", self._part, self._trouble)
        else:
            self._trouble, self._takes_s = None, time.monotonic() - self._started_at
            self._counted = time.monotonic(), True

    def _error(self) -> StartingError:
        if self._starting is None or self._starting.done():
            return StartingError(f"{self._part}: no replica runs now; the next request that needs one starts it")
        left_s = max(1, math.ceil(self._started_at + self._takes_s - time.monotonic()))
        return StartingError(f"{self._part}: no replica runs now, and one starts; ask again in about {left_s} s", left_s)
