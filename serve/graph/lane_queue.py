"""One lane's queue before a part: who waits, whose turn it is, how fast it goes, and who is refused.

The catalogues take turns. Does not send (`serve.graph.microbatch`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from matinee.errors import OverloadedError
from matinee.fair_share import FairShare
from serve.graph.wire import QueuedMessage

Sent = TypeVar("Sent")
Result = TypeVar("Result")

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
class WaitingMessage(Generic[Sent, Result]):
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

    lines: dict[str, deque[WaitingMessage[Sent, Result]]] = field(default_factory=dict)
    first: deque[WaitingMessage[Sent, Result]] = field(default_factory=deque)
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def line(self, catalogue: str) -> Sequence[WaitingMessage[Sent, Result]]:
        return self.lines.get(catalogue, ())

    def append(self, waiting: WaitingMessage[Sent, Result]) -> None:
        line = self.lines.get(waiting.catalogue)
        if line is None:
            line = self.lines[waiting.catalogue] = deque()
            if not self.count:
                self.first = line
        line.append(waiting)
        self.count += 1

    def take(self) -> WaitingMessage[Sent, Result]:
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

    def longest(self, catalogue: str) -> deque[WaitingMessage[Sent, Result]] | None:
        """The longest line. None where that of `catalogue` would be as long with one more."""
        line = max(self.lines.values(), key=len, default=self.first)
        return line if len(line) > len(self.line(catalogue)) + 1 else None

    def give_up(self, line: deque[WaitingMessage[Sent, Result]]) -> WaitingMessage[Sent, Result]:
        """The last message of a line, which leaves it."""
        self.count -= 1
        return line.pop()


@dataclass(slots=True, eq=False)
class LaneQueue(Generic[Sent, Result]):
    """A lane's messages, their pace, and the lane's share of the time."""

    name: str
    lane: Lane
    waiting: _Turns[Sent, Result] = field(default_factory=_Turns)
    pace: _Pace = field(default_factory=_Pace)
    share: FairShare = field(init=False)

    def __post_init__(self) -> None:
        self.share = FairShare(self.lane.share)

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
            settle(self.waiting.give_up(longest).future, OverloadedError(message))

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
                settle(head.future, OverloadedError(message, self.pace.wait_s(len(self.waiting))))
            self.waiting.drop_first()
        return True


def settle(future: "asyncio.Future[Result]", result: Result | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
