"""Micro-batching: messages that wait at the same moment travel together, because a hop costs milliseconds of CPU whatever it carries.

A lone message never waits for company. Under load, batches grow while the batches before them are under way. Lanes keep messages apart
that must not wait for one another. Does not know what a message means, and never retries one.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from matinee.errors import DeadlineError, MatineeError, OverloadedError
from serve.errors import UnavailableError
from serve.graph.wire import QueuedMessage, enqueue

MAX_HOP_BATCH = 64
"""Messages of one call to a part."""

Sent = TypeVar("Sent")
Result = TypeVar("Result")

ResultCallback = Callable[[int, Result | MatineeError], None]
"""Answers the message at a place of a batch at once, while others of the batch are still worked on."""

_MOST_UNFINISHED = 8
"""Most partly answered batches, for each batch that may run. They hold no place, so that a slow message does not block new ones."""


_SHORT = 8
"""A queue up to this length refuses no message, so that a machine that needs seconds for one still answers."""

_PACE_WEIGHT = 0.2
"""Weight of the newest batch in the average pace of a queue."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Messages that wait in one queue. A lane goes before those that are named after it.

    `share` is the part of the time that a lane gets while those before it have work for all of it. A message that expects to wait for
    longer than `max_wait_s` is refused at once. One that did wait so long is refused then, as others would be late because of it: here and
    in the gateway's queue before this one together, for its client waits for both. A short queue refuses none.
    """

    max_waiting: int
    share: float = 0.0
    max_wait_s: float = float("inf")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Sent, Result]):
    queued: QueuedMessage[Sent]
    catalogue: str
    future: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Pace:
    """How fast messages leave a queue: averages over batches of the seconds from one to the next, and of the messages in one.

    While a batch leaves others behind, the seconds are those until the next one. Of a batch that leaves none, they are its own work:
    idle times say nothing.
    """

    interval_s: float = 0.0
    messages: float = 0.0
    _left_since: float | None = None

    def take(self, messages: int, *, left: bool) -> None:
        """A batch leaves the queue now. `left`: others stay."""
        now = time.monotonic()
        if self._left_since is not None:
            self._record(messages, now - self._left_since)
        self._left_since = now if left else None

    def end(self, messages: int, took_s: float) -> None:
        """A batch has been answered."""
        if self._left_since is None:
            self._record(messages, took_s)

    def _record(self, messages: int, interval_s: float) -> None:
        weight = _PACE_WEIGHT if self.messages else 1.0
        self.interval_s += weight * (interval_s - self.interval_s)
        self.messages += weight * (messages - self.messages)

    def wait_s(self, waiting: int) -> float:
        """Seconds until `waiting` messages have left; 0 before the first batch."""
        return waiting * self.interval_s / self.messages if self.messages else 0.0


@dataclass(slots=True, eq=False)
class _Turns(Generic[Sent, Result]):
    """Messages that wait, in a line for each catalogue. The catalogues take turns; the first line is that whose turn it is."""

    lines: dict[str, deque[_Waiting[Sent, Result]]] = field(default_factory=dict)
    first: deque[_Waiting[Sent, Result]] = field(default_factory=deque)
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def line(self, catalogue: str) -> Sequence[_Waiting[Sent, Result]]:
        return self.lines.get(catalogue, ())

    def append(self, waiting: _Waiting[Sent, Result]) -> None:
        line = self.lines.get(waiting.catalogue)
        if line is None:
            line = self.lines[waiting.catalogue] = deque()
            if not self.count:
                self.first = line
        line.append(waiting)
        self.count += 1

    def take(self) -> _Waiting[Sent, Result]:
        """The message whose turn it is. Then the next catalogue has its turn."""
        waiting = self.first.popleft()
        self.count -= 1
        if not self.first or len(self.lines) > 1:
            self._pass_on(waiting.catalogue)
        return waiting

    def drop_first(self) -> None:
        """Leave out the message whose turn it is. Its catalogue keeps its turn."""
        waiting = self.first.popleft()
        self.count -= 1
        if not self.first:
            self._pass_on(waiting.catalogue)

    def _pass_on(self, catalogue: str) -> None:
        line = self.lines.pop(catalogue)
        if line:
            self.lines[catalogue] = line
        if self.lines:
            self.first = next(iter(self.lines.values()))

    def longest(self, catalogue: str) -> deque[_Waiting[Sent, Result]] | None:
        """The longest line. None where that of `catalogue` would be as long with one more."""
        line = max(self.lines.values(), key=len, default=self.first)
        return line if len(line) > len(self.line(catalogue)) + 1 else None

    def give_up(self, line: deque[_Waiting[Sent, Result]]) -> _Waiting[Sent, Result]:
        """The last message of a line, which leaves it."""
        self.count -= 1
        return line.pop()


@dataclass(slots=True, eq=False)
class _Queue(Generic[Sent, Result]):
    """A lane's messages, the seconds that its share entitles it to, and those that its last batch took."""

    name: str
    lane: Lane
    waiting: _Turns[Sent, Result] = field(default_factory=_Turns)
    owed_s: float = 0.0
    took_s: float = 0.0
    pace: _Pace = field(default_factory=_Pace)

    def check_admits(self, catalogue: str) -> None:
        """Raises `OverloadedError` where one more message of `catalogue` would be too many, or would wait too long.

        In a full lane, the catalogue with the longest line gives its last place to one with a shorter line.
        """
        if self.is_empty() and self.lane.max_waiting:
            return
        waiting, own = self.waiting.count, len(self.waiting.line(catalogue))
        # The catalogues take turns, so a short line beside a long one is soon at its end.
        ahead = min(waiting, own * len(self.waiting.lines)) if own else min(waiting, len(self.waiting.lines))
        longest = self.waiting.longest(catalogue) if waiting >= self.lane.max_waiting else None
        if waiting >= self.lane.max_waiting and longest is None:
            raise OverloadedError(f"{self.name}: {waiting} requests wait already; ask again in a moment")
        wait_s = self.pace.wait_s(ahead)
        if ahead >= _SHORT and wait_s > self.lane.max_wait_s:
            message = f"{self.name}: {ahead} requests wait already, for about {wait_s:.1f} s; ask again in a moment"
            raise OverloadedError(message, wait_s)
        if longest is not None:
            message = f"{self.name}: {waiting} requests wait already, most of them for this catalogue; ask again in a moment"
            _settle(self.waiting.give_up(longest).future, OverloadedError(message))

    def is_empty(self) -> bool:
        """Drops the messages at its head whose callers have gone, or who have waited too long."""
        if not self.waiting.count:
            return True
        late = time.monotonic() - self.lane.max_wait_s
        while self.waiting.count:
            line = self.waiting.first
            head = line[0]
            if not head.future.done():
                if len(line) <= _SHORT or head.queued.since >= late:
                    return False
                message = (
                    f"{self.name}: no turn within {self.lane.max_wait_s:g} s, more requests came than it can answer; ask again in a moment"
                )
                _settle(head.future, OverloadedError(message, self.pace.wait_s(len(self.waiting))))
            self.waiting.drop_first()
        return True


class MicroBatcher(Generic[Sent, Result]):
    """Sends messages in batches that cost at most `max_batch` (a lone message may cost more), at most `max_in_flight` batches at once.

    `send(batch, on_result)` returns one result or one `MatineeError` for each message, in order. It may give those that are known sooner
    to `on_result`. It is cancelled when nobody waits for the batch any more. A call raises `OverloadedError` when too many messages wait in
    its lane, when it would wait there for too long, or when it still waits there at its deadline; and `DeadlineError` when the result of
    its batch does not come in time. `cost` is 1 for each message by default. In each lane, the catalogues (`catalogue_of`) take turns.
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
    ) -> None:
        self._name = name
        self._send = send
        self.max_batch = max_batch
        self.max_in_flight = max_in_flight
        self._lane_of = lane_of
        self._cost = cost
        self._catalogue_of = catalogue_of
        self._observe_batch = observe_batch
        self._queues: list[_Queue[Sent, Result]] = [_Queue(name, lane) for lane in lanes]
        self._in_flight: set[asyncio.Task[None]] = set()
        self._unanswered = 0

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
        waiting: _Waiting[Sent, Result] = _Waiting(
            enqueue(message, deadline) if since is None else QueuedMessage(message, deadline, since, traceparent), catalogue
        )
        queue.waiting.append(waiting)
        if len(queue.waiting) == 1:
            # After this turn of the loop, so that requests which arrived together leave together.
            asyncio.get_running_loop().call_soon(self._pump)
        try:
            async with asyncio.timeout(left):
                return await waiting.future
        except TimeoutError:
            if waiting in queue.waiting.line(catalogue):
                # The part has more work than it can do, but is not broken: the client may try again.
                raise OverloadedError(f"{self._name}: its queue took until the deadline; ask again in a moment") from None
            raise DeadlineError(f"{self._name}: no answer within the deadline") from None

    def _pump(self) -> None:
        most = _MOST_UNFINISHED * self.max_in_flight
        while self._unanswered < self.max_in_flight and len(self._in_flight) < most and (queue := self._next()) is not None:
            batch = self._take(queue)
            self._unanswered += 1
            # In an empty context. In a request's context, Serve would cancel the whole batch when that request's client goes away.
            task = asyncio.get_running_loop().create_task(self._run(queue, batch), context=Context())
            self._in_flight.add(task)
            task.add_done_callback(self._done)

    def _next(self) -> _Queue[Sent, Result] | None:
        """The first lane with work, unless a later one is owed its share."""
        filled = []
        for queue in self._queues:
            if queue.is_empty():
                queue.owed_s = 0.0
            else:
                filled.append(queue)
        return next((queue for queue in filled[1:] if queue.owed_s > queue.took_s), filled[0] if filled else None)

    def _take(self, queue: _Queue[Sent, Result]) -> list[_Waiting[Sent, Result]]:
        batch: list[_Waiting[Sent, Result]] = []
        left = self.max_batch
        while not queue.is_empty():
            left -= self._cost(queue.waiting.first[0].queued.message)
            if batch and left < 0:
                break
            batch.append(queue.waiting.take())
        queue.pace.take(len(batch), left=bool(queue.waiting))
        return batch

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._pump()

    async def _run(self, queue: _Queue[Sent, Result], batch: list[_Waiting[Sent, Result]]) -> None:
        """Send a batch. A hanging call keeps its place only while somebody waits for it, because another replica may work."""
        if self._observe_batch is not None:
            self._observe_batch(len(batch))
        start, unanswered = time.monotonic(), True

        def answered() -> None:
            nonlocal unanswered
            self._unanswered -= unanswered
            unanswered = False

        def on_result(place: int, result: Result | MatineeError) -> None:
            _settle(batch[place].future, result)
            answered()
            self._pump()

        call = asyncio.ensure_future(self._send([waiting.queued for waiting in batch], on_result))
        everyone = asyncio.gather(*(waiting.future for waiting in batch), return_exceptions=True)
        both: set[asyncio.Future[Sequence[Result | MatineeError]] | asyncio.Future[list[Result | BaseException]]] = {call, everyone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if any(waiting.future.cancelled() for waiting in batch):
            call.cancel()
            # Work in a thread can't be interrupted, so it keeps its place until it ends.
            await asyncio.wait({call})
        answered()
        _resolve(self._name, batch, call)
        took_s = time.monotonic() - start
        queue.pace.end(len(batch), took_s / self.max_in_flight)
        self._charge(queue, took_s)

    def _charge(self, queue: _Queue[Sent, Result], took_s: float) -> None:
        """The time of a batch: paid by its lane, and owed to the later ones that waited meanwhile."""
        queue.owed_s, queue.took_s = max(0.0, queue.owed_s - took_s), took_s
        for later in self._queues[self._queues.index(queue) + 1 :]:
            if later.waiting:
                later.owed_s += took_s * later.lane.share / (1 - later.lane.share)


def _settle(future: "asyncio.Future[Result]", result: Result | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _resolve(name: str, batch: list[_Waiting[Sent, Result]], call: "asyncio.Future[Sequence[Result | MatineeError]]") -> None:
    """Give each caller of a batch its result or error; a call that failed as a whole fails all that have none yet."""
    try:
        for waiting, result in zip(batch, call.result(), strict=True):
            _settle(waiting.future, result)
    except asyncio.CancelledError:
        for waiting in batch:
            _settle(waiting.future, UnavailableError(f"{name} gave the call up; ask again in a moment"))
    except Exception as error:  # noqa: BLE001  every caller of the batch gets it
        for waiting in batch:
            _settle(waiting.future, error)


def in_time(batch: Sequence[QueuedMessage[Sent]]) -> list[bool]:
    """Which messages of a batch can still be answered before their deadline."""
    now = time.monotonic()
    return [queued.deadline > now for queued in batch]


def errors_as_results(results: Sequence[Result | BaseException]) -> list[Result | MatineeError]:
    """The results of `asyncio.gather(..., return_exceptions=True)`: raises the first exception that is no `MatineeError`."""
    return [_checked(result) for result in results]


async def as_completed(work: Sequence[Awaitable[Result]]) -> AsyncIterator[list[tuple[int, Result | MatineeError]]]:
    """Yields places and results as they become known; those that are ready together come as one list. Errors are as in `errors_as_results`.

    Cancels the remaining work if the caller stops taking results.
    """
    places = {asyncio.ensure_future(one): place for place, one in enumerate(work)}
    pending = set(places)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            yield [(places[one], _checked(one.exception() or one.result())) for one in done]
    finally:
        for one in pending:
            one.cancel()


def _checked(result: Result | BaseException) -> Result | MatineeError:
    if isinstance(result, BaseException) and not isinstance(result, MatineeError):
        raise result
    return result
