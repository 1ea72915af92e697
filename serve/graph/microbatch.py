"""Micro-batching: messages that wait at the same moment travel together, because a hop costs milliseconds of CPU whatever it carries.

A lone message never waits for company. Under load, batches grow while the batches before them are under way. Does not know what a message
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
from serve.telemetry import tracing

MAX_HOP_BATCH = 64
"""Messages of one call to a part."""

Sent = TypeVar("Sent")
Result = TypeVar("Result")


class Queued(NamedTuple, Generic[Sent]):
    """A message, its deadline, since when it waits, and the traceparent of the span that sent it.

    Times are seconds since 1970: the processes of one host or cluster share that clock well enough.
    """

    message: Sent
    deadline: float
    since: float
    traceparent: str | None = None


def queued(message: Sent, deadline: float) -> Queued[Sent]:
    """`message` as it is sent from here and now."""
    return Queued(message, deadline, time.time(), tracing.traceparent())


@dataclass(slots=True)
class _Waiting(Generic[Sent, Result]):
    queued: Queued[Sent]
    future: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MicroBatcher(Generic[Sent, Result]):
    """Sends messages in batches of at most `max_batch`, at most `max_in_flight` batches at once; at most `max_waiting` messages wait.

    `send` returns one result or one `MatineeError` for each message, in order. A call raises `OverloadedError` when too many messages
    wait, and `DeadlineError` when its result does not come in time.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[Queued[Sent]]], Awaitable[Sequence[Result | MatineeError]]],
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
        self._waiting: deque[_Waiting[Sent, Result]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Future[Sequence[Result | MatineeError]]] = set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def __call__(self, message: Sent, deadline: float, since: float | None = None, traceparent: str | None = None) -> Result:
        """The result of `message`. One that has waited elsewhere before brings its `since` and `traceparent`."""
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError(f"{self._name}: {self._max_waiting} requests wait already; ask again in a moment")
        left = deadline - time.time()
        if left <= 0:
            raise DeadlineError(f"{self._name}: the deadline had passed before the work began")
        waiting: _Waiting[Sent, Result] = _Waiting(
            queued(message, deadline) if since is None else Queued(message, deadline, since, traceparent)
        )
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
            batch: list[_Waiting[Sent, Result]] = []
            while self._waiting and len(batch) < self.max_batch:
                waiting = self._waiting.popleft()
                if not waiting.future.done():
                    batch.append(waiting)
            if batch:
                # In no request's context: Serve cancels what was called in the one of a client that went away, and others travel here too.
                task = asyncio.get_running_loop().create_task(self._run(batch), context=Context())
                self._in_flight.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._pump()

    async def _run(self, batch: list[_Waiting[Sent, Result]]) -> None:
        """Send a batch. A call that hangs keeps its place until nobody waits for it, not for ever: another replica may be well."""
        if self._observe_batch is not None:
            self._observe_batch(len(batch))
        call = asyncio.ensure_future(self._send([waiting.queued for waiting in batch]))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        # Not cancelled after that: it may be in the middle of a write.
        await asyncio.wait({call}, timeout=max(waiting.queued.deadline for waiting in batch) - time.time())
        if call.done():
            _resolve(batch, call)

    def _forget(self, call: "asyncio.Future[Sequence[Result | MatineeError]]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            # One that failed after its deadline has nobody left to tell; without this, asyncio would log it as lost.
            call.exception()


def _resolve(batch: list[_Waiting[Sent, Result]], call: "asyncio.Future[Sequence[Result | MatineeError]]") -> None:
    """Give each caller of a batch its result or error; a call that failed as a whole fails all of them."""
    try:
        for waiting, result in zip(batch, call.result(), strict=True):
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


def in_time(batch: Sequence[Queued[Sent]]) -> list[bool]:
    """Which messages of a batch can still be answered before their deadline."""
    now = time.time()
    return [queued.deadline > now for queued in batch]


async def gather_errors(work: Sequence[Awaitable[Result]]) -> list[Result | MatineeError]:
    """The results in order; a `MatineeError` is a result here, any other exception is raised."""
    return errors_as_results(await asyncio.gather(*work, return_exceptions=True))


def errors_as_results(results: Sequence[Result | BaseException]) -> list[Result | MatineeError]:
    """The results of `asyncio.gather(..., return_exceptions=True)`: raises the first exception that is no `MatineeError`."""
    checked: list[Result | MatineeError] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, MatineeError):
            raise result
        checked.append(result)
    return checked
