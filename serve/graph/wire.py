"""Deadlines on both sides of a hop: a moment inside a process, the seconds that are left between two.

The clocks of two machines may differ by seconds. So no message carries a moment: the receiver counts down what was left, on its own
monotonic clock. The time on the way is the sender's to count: it stops waiting at its own deadline, and cancels the call.
"""

import time
from typing import Generic, NamedTuple, TypeVar

from serve.telemetry import tracing

Sent = TypeVar("Sent")


class QueuedMessage(NamedTuple, Generic[Sent]):
    """A message, its deadline, since when it waits, and the traceparent of the span that sent it.

    Deadline and `since` are `time.monotonic()` moments of this process.
    """

    message: Sent
    deadline: float
    since: float
    traceparent: str | None = None


class WireMessage(NamedTuple, Generic[Sent]):
    """A message on its way to another process: the seconds that are left for it, and those that it has waited."""

    message: Sent
    left_s: float
    waited_s: float = 0.0
    traceparent: str | None = None


def enqueue(message: Sent, deadline: float) -> QueuedMessage[Sent]:
    """`message` as it is sent from here and now."""
    return QueuedMessage(message, deadline, time.monotonic(), tracing.traceparent())


def to_wire(queued: QueuedMessage[Sent]) -> WireMessage[Sent]:
    """What leaves this process now."""
    now = time.monotonic()
    return WireMessage(queued.message, queued.deadline - now, now - queued.since, queued.traceparent)


def from_wire(hop: WireMessage[Sent]) -> QueuedMessage[Sent]:
    """What has arrived in this process now."""
    now = time.monotonic()
    return QueuedMessage(hop.message, now + hop.left_s, now - hop.waited_s, hop.traceparent)
