"""Calls that wait at the same moment travel together: a hop costs milliseconds of CPU whatever it carries.

A lone call never waits for company; under load, batches grow as long as the calls before them are under way. Does not know what a call
means, and never retries one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from matinee.errors import DeadlineError, MatineeError, OverloadedError
from serve.telemetry.tracing import traceparent

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Timed(NamedTuple, Generic[Unit]):
    """A unit of work, its deadline and since when it waits, in seconds since 1970 (processes of one host or cluster share that clock well
    enough), and the traceparent of the span that asks for it."""

    unit: Unit
    deadline: float
    since: float
    traceparent: str | None = None


def timed(unit: Unit, deadline: float) -> Timed[Unit]:
    """`unit` as it is sent from here and now."""
    return Timed(unit, deadline, time.time(), traceparent())


@dataclass(slots=True)
class _Waiting(Generic[Unit, Result]):
    timed: Timed[Unit]
    future: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Coalescer(Generic[Unit, Result]):
    """Sends units in batches of at most `max_batch`, at most `max_in_flight` batches at once, and lets at most `max_waiting` units wait.

    `send` gets timed units and returns one result or one `MatineeError` for each, in order. A call raises
    `OverloadedError` when too many wait and `DeadlineError` when its answer does not come in time.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Timed[Unit]]], Awaitable[Sequence[Result | MatineeError]]],
        *,
        max_batch: int,
        max_in_flight: int,
        max_waiting: int,
        observe_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._name = name
        self._send = send
        self.max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._observe_batch = observe_batch
        self._waiting: deque[_Waiting[Unit, Result]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def __call__(self, unit: Unit, deadline: float) -> Result:
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError(f"{self._name}: {self._max_waiting} requests wait already; ask again in a moment")
        left = deadline - time.time()
        if left <= 0:
            raise DeadlineError(f"{self._name}: the deadline had passed before the work began")
        waiting: _Waiting[Unit, Result] = _Waiting(timed(unit, deadline))
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            # After this turn of the loop, so that requests which arrived together leave together.
            asyncio.get_running_loop().call_soon(self._pump)
        try:
            async with asyncio.timeout(left):
                return await waiting.future
        except TimeoutError:
            raise DeadlineError(f"{self._name}: no answer within the deadline") from None

    def _pump(self) -> None:
        while self._waiting and len(self._in_flight) < self._max_in_flight:
            batch: list[_Waiting[Unit, Result]] = []
            while self._waiting and len(batch) < self.max_batch:
                waiting = self._waiting.popleft()
                if not waiting.future.done():
                    batch.append(waiting)
            if batch:
                # In no request's context: Serve cancels what was called in the one of a client that went away, and others travel here too.
                task = asyncio.get_running_loop().create_task(self._while_wanted(batch), context=Context())
                self._in_flight.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._pump()

    async def _while_wanted(self, batch: list[_Waiting[Unit, Result]]) -> None:
        """A call that hangs keeps its place until nobody waits for it, not for ever: another replica may be well."""
        call = asyncio.create_task(self._run(batch))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        # Not cancelled after that: it may be in the middle of a write.
        await asyncio.wait({call}, timeout=max(waiting.timed.deadline for waiting in batch) - time.time())

    async def _run(self, batch: list[_Waiting[Unit, Result]]) -> None:
        if self._observe_batch is not None:
            self._observe_batch(len(batch))
        try:
            results = await self._send([waiting.timed for waiting in batch])
            for waiting, result in zip(batch, results, strict=True):
                if waiting.future.done():
                    continue
                if isinstance(result, MatineeError):
                    waiting.future.set_exception(result)
                else:
                    waiting.future.set_result(result)
        except Exception as error:  # noqa: BLE001  every caller of the batch gets it
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)


def still_wanted(batch: Sequence[Timed[Unit]]) -> list[bool]:
    """Which units of a batch can still be answered in time."""
    now = time.time()
    return [timed.deadline > now for timed in batch]


async def gather_errors(work: Sequence[Awaitable[Result]]) -> list[Result | MatineeError]:
    """The results in order; a `MatineeError` is a result here, any other exception is raised."""
    results: list[Result | MatineeError] = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, MatineeError):
            raise result
        results.append(result)
    return results
