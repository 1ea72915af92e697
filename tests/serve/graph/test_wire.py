"""Deadlines between machines: what is left travels, and no clock of another machine counts."""

import time
from typing import Any

import pytest

from serve.graph import messages
from serve.graph.wire import WireMessage, enqueue, from_wire, to_wire


def test_what_is_left_is_counted_down_where_the_message_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waiting = enqueue("a", 115.0)
    now[0] = 104.0
    sent = to_wire(waiting)
    assert sent == WireMessage("a", left_s=11.0, waited_s=4.0)
    # Another machine was started at another time.
    now[0] = 9000.0
    arrived = from_wire(sent)
    assert (arrived.deadline, arrived.since) == (9011.0, 8996.0)


@pytest.mark.parametrize("skew_s", [16, -16, 86_400])
async def test_a_gateway_whose_clock_is_wrong_is_answered(local_graph: Any, monkeypatch: pytest.MonkeyPatch, skew_s: float) -> None:
    """The sender's clock differs from the receiver's: 16 s ahead made every request late, behind it hid every late one."""
    there, away = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: there() + away[0])
    away[0] = skew_s
    sent = to_wire(enqueue(messages.Embed(("a text",)), time.monotonic() + 60))
    away[0] = 0.0
    [result] = await local_graph.embedder_replica().call([sent])
    assert isinstance(result, messages.Embedded)
