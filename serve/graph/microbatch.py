"""Micro-batching: messages that wait at the same moment travel together, because a hop costs milliseconds of CPU whatever it carries.

A lone message never waits for company. Under load, batches grow while the batches before them are under way. Lanes keep messages apart
that must not wait for one another. Does not know what a message means, and never retries one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from matinee.errors import DeadlineError, MatineeError, OverloadedError
from serve.errors import UnavailableError
from serve.graph.lane_queue import Lane, LaneQueue, WaitingMessage, settle
from serve.graph.wire import QueuedMessage, enqueue

MAX_HOP_BATCH = 64
"""Messages of one call to a part."""

Sent = TypeVar("Sent")
Result = TypeVar("Result")

ResultCallback = Callable[[int, Result | MatineeError], None]
"""Answers the message at a place of a batch at once, while others of the batch are still worked on."""

_MOST_UNFINISHED = 8
"""Most partly answered batches, for each batch that may run. They hold no place, so that a slow message does not block new ones."""


class MicroBatcher(Generic[Sent, Result]):
    """Sends messages in batches that cost at most `max_batch` (a lone message may cost more), at most `max_in_flight` batches at once.

    `send(batch, on_result)` returns one result or one `MatineeError` for each message, in order. It may give those that are known sooner
    to `on_result`. It is cancelled when nobody waits for the batch any more. A call raises `OverloadedError` when too many messages wait in
    its lane, when it would wait there for too long, or when it still waits there at its deadline; and `DeadlineError` when the result of
    its batch does not come in time. `cost` is 1 for each message by default. In each lane, the catalogues (`catalogue_of`) take turns.

    A message for which `at_once` is true does not wait for others while they come one by one. It is sent alone, and by its caller. That is
    for a part of this process, whose answer may take less than the turns of the event loop before it.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[QueuedMessage[Sent]], ResultCallback[Result]], Awaitable[Sequence[Result | MatineeError]]],
        *,
        max_batch: int,
        max_in_flight: int,
        lanes: Sequence[Lane],
        lane_of: Callable[[Sent], int] = lambda message: 0,
        cost: Callable[[Sent], int] = lambda message: 1,
        catalogue_of: Callable[[Sent], str] = lambda message: "",
        observe_batch: Callable[[int], None] | None = None,
        at_once: Callable[[Sent], bool] = lambda message: False,
    ) -> None:
        self._name = name
        self._send = send
        self.max_batch = max_batch
        self.max_in_flight = max_in_flight
        self._lane_of = lane_of
        self._cost = cost
        self._catalogue_of = catalogue_of
        self._observe_batch = observe_batch
        self._at_once = at_once
        self._queues: list[LaneQueue[Sent, Result]] = [LaneQueue(name, lane) for lane in lanes]
        self._in_flight: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        self._left_in_turn = self._gathers = False

    @property
    def waiting(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues)

    async def __call__(self, message: Sent, deadline: float, since: float | None = None, traceparent: str | None = None) -> Result:
        """The result of `message`. If it has waited elsewhere before, it brings its `since` and `traceparent`."""
        queue = self._queues[self._lane_of(message)]
        catalogue = self._catalogue_of(message)
        queue.check_admits(catalogue)
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"{self._name}: the deadline had passed before the work began")
        waiting: WaitingMessage[Sent, Result] = WaitingMessage(
            enqueue(message, deadline) if since is None else QueuedMessage(message, deadline, since, traceparent), catalogue
        )
        try:
            async with asyncio.timeout(left):
                if self._may_leave_at_once(message):
                    queue.pace.take(1, left=False)
                    self._unanswered += 1
                    await self._run(queue, [waiting], in_own_task=False)
                else:
                    self._append(queue, waiting)
                return await waiting.future
        except TimeoutError:
            if waiting in queue.waiting.line(catalogue):
                # The part has more work than it can do, but is not broken: the client may try again.
                raise OverloadedError(f"{self._name}: its queue took until the deadline; ask again in a moment") from None
            raise DeadlineError(f"{self._name}: no answer within the deadline") from None

    def _may_leave_at_once(self, message: Sent) -> bool:
        """Whether it comes alone, and finds a place. Once two come in one turn of the loop, all wait for company until one finds none."""
        self._gathers = self._gathers or self._left_in_turn
        if self._gathers or self._unanswered >= self.max_in_flight or not self._at_once(message) or self._next() is not None:
            return False
        self._left_in_turn = True
        asyncio.get_running_loop().call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        self._left_in_turn = False

    def _append(self, queue: LaneQueue[Sent, Result], waiting: WaitingMessage[Sent, Result]) -> None:
        queue.waiting.append(waiting)
        if len(queue.waiting) == 1:
            # After this turn of the loop, so that requests which arrived together leave together.
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        most = _MOST_UNFINISHED * self.max_in_flight
        while self._unanswered < self.max_in_flight and len(self._in_flight) < most and (queue := self._next()) is not None:
            batch = self._take(queue)
            self._unanswered += 1
            # In an empty context. In a request's context, Serve would cancel the whole batch when that request's client goes away.
            task = asyncio.get_running_loop().create_task(self._run(queue, batch), context=Context())
            self._in_flight.add(task)
            task.add_done_callback(self._done)

    def _next(self) -> LaneQueue[Sent, Result] | None:
        """The first lane with work, unless a later one is owed its share."""
        filled = []
        for queue in self._queues:
            if queue.is_empty():
                queue.share.reset()
            else:
                filled.append(queue)
        return next((queue for queue in filled[1:] if queue.share.is_due), filled[0] if filled else None)

    def _take(self, queue: LaneQueue[Sent, Result]) -> list[WaitingMessage[Sent, Result]]:
        batch: list[WaitingMessage[Sent, Result]] = []
        left = self.max_batch
        while not queue.is_empty():
            left -= self._cost(queue.waiting.first[0].queued.message)
            if batch and left < 0:
                break
            batch.append(queue.waiting.take())
        queue.pace.take(len(batch), left=bool(queue.waiting))
        self._gathers = len(batch) > 1
        return batch

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._pump()

    async def _run(self, queue: LaneQueue[Sent, Result], batch: list[WaitingMessage[Sent, Result]], *, in_own_task: bool = True) -> None:
        """Send a batch. A hanging call keeps its place only while somebody waits for it, because another replica may work.

        Sends in this task: each further task would cost a lone message another turn of the event loop. `in_own_task`: it is no caller's.
        """
        if self._observe_batch is not None:
            self._observe_batch(len(batch))
        start, unanswered = time.monotonic(), True

        def mark_answered() -> None:
            nonlocal unanswered
            self._unanswered -= unanswered
            unanswered = False

        def on_result(place: int, result: Result | MatineeError) -> None:
            settle(batch[place].future, result)
            mark_answered()
            self._pump()

        if in_own_task:
            _cancel_unwanted(asyncio.current_task(), batch)
        try:
            for waiting, result in zip(batch, await self._send([waiting.queued for waiting in batch], on_result), strict=True):
                settle(waiting.future, result)
        except asyncio.CancelledError:
            if not in_own_task:
                raise
            self._fail(batch, UnavailableError(f"{self._name} gave the call up; ask again in a moment"))
        except Exception as error:  # noqa: BLE001  every caller of the batch gets it
            self._fail(batch, error)
        finally:
            mark_answered()
            took_s = time.monotonic() - start
            queue.pace.end(len(batch), took_s / self.max_in_flight)
            self._charge(queue, took_s)
            if not in_own_task:
                self._pump()

    def _fail(self, batch: list[WaitingMessage[Sent, Result]], error: Exception) -> None:
        """A call that failed as a whole fails all of its callers that have no result yet."""
        for waiting in batch:
            settle(waiting.future, error)

    def _charge(self, queue: LaneQueue[Sent, Result], took_s: float) -> None:
        """The time of a batch: paid by its lane, and owed to the later ones that waited meanwhile."""
        queue.share.work(took_s)
        for later in self._queues[self._queues.index(queue) + 1 :]:
            if later.waiting:
                later.share.wait(took_s)


def _cancel_unwanted(task: "asyncio.Task[None] | None", batch: Sequence[WaitingMessage[Sent, Result]]) -> None:
    """Cancel `task` once nobody waits for any message of its batch, and somebody has given up."""
    still_waiting = len(batch)

    def on_done(_: "asyncio.Future[Result]") -> None:
        nonlocal still_waiting
        still_waiting -= 1
        # Work in a thread can't be interrupted, so it keeps its place until it ends.
        if not still_waiting and task is not None and any(waiting.future.cancelled() for waiting in batch):
            task.cancel()

    for waiting in batch:
        waiting.future.add_done_callback(on_done)


def in_time(batch: Sequence[QueuedMessage[Sent]]) -> list[bool]:
    """Which messages of a batch can still be answered before their deadline."""
    now = time.monotonic()
    return [queued.deadline > now for queued in batch]


def errors_as_results(results: Sequence[Result | BaseException]) -> list[Result | MatineeError]:
    """The results of `asyncio.gather(..., return_exceptions=True)`: raises the first exception that is no `MatineeError`."""
    return [_reraise_unexpected(result) for result in results]


async def as_completed(work: Sequence[Awaitable[Result]]) -> AsyncIterator[list[tuple[int, Result | MatineeError]]]:
    """Yields places and results as they become known; those that are ready together come as one list. Errors are as in `errors_as_results`.

    Cancels the remaining work if the caller stops taking results. A lone piece of work needs no task of its own.
    """
    if len(work) == 1:
        try:
            result: Result | MatineeError = await work[0]
        except MatineeError as error:
            result = error
        yield [(0, result)]
        return
    places = {asyncio.ensure_future(one): place for place, one in enumerate(work)}
    pending = set(places)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            yield [(places[one], _reraise_unexpected(one.exception() or one.result())) for one in done]
    finally:
        for one in pending:
            one.cancel()


def _reraise_unexpected(result: Result | BaseException) -> Result | MatineeError:
    if isinstance(result, BaseException) and not isinstance(result, MatineeError):
        raise result
    return result
