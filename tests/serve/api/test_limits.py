"""What a gateway refuses before any work: clients that take too much, and routes whose queue is long."""

import asyncio
import time
from typing import Any

import pytest

from matinee.errors import OverloadedError
from serve.api.auth import new_key
from serve.api.limits import BusyRoutes, RateLimit
from serve.graph.lane_queue import Lane
from serve.graph.microbatch import MicroBatcher
from tests.serve.api.middleware_client import ENTRY, KEY, PLACES, Crowd, MiddlewareClient, answer
from tests.waiting import HANG_S, until_async


async def test_a_queue_that_refused_is_not_asked_again_until_an_eighth_of_it_has_left() -> None:
    calls, now = [], [0.0]

    async def full(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        raise OverloadedError("embedder: 90 requests wait already", 4.5)

    visit = MiddlewareClient(full, path="/v1/search", names_requests=False)
    visit.admission._busy = BusyRoutes(lambda: now[0])

    async def refused(path: str = "/v1/search") -> bytes:
        visit.sent.clear()
        await visit(path)
        assert visit.status == 503
        return visit.headers[b"retry-after"]

    assert await refused() == b"5"
    now[0] = 0.5
    assert await refused() == b"4"
    assert visit.sink.values["matinee_refused", ()] == 1
    assert calls == ["/v1/search"]
    await refused("/v1/items/7/similar")
    await refused("/v1/items")
    assert calls == ["/v1/search", "/v1/items/7/similar"]
    now[0] = 0.6
    await refused()
    assert calls[-1] == "/v1/search"


async def test_a_queue_whose_requests_have_gone_is_asked_again_at_once() -> None:
    """The real queue: one client fills it until it refuses, and leaves. On a clock that stands still, the others are let in."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def send(batch: Any, early: Any) -> list[None]:
        # A pace of one message a moment, and then one that never ends.
        if begun.is_set():
            await gate.wait()
        await asyncio.sleep(0.01)
        begun.set()
        return [None] * len(batch)

    queue = MicroBatcher[str, None]("embedder", send, max_batch=1, max_in_flight=1, lanes=[Lane(100, max_wait_s=0.001)])
    calls = []

    async def search(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await queue("text", time.monotonic() + HANG_S)
        await answer(scope, receive, send)

    visit = MiddlewareClient(search, deployment={"max_ongoing_requests": 100, "target_ongoing_requests": 1})
    visit.admission._busy = BusyRoutes(lambda: 0.0)
    await visit()
    greedy = [asyncio.create_task(visit()) for _ in range(20)]
    # One is worked on, some wait, and the others are refused.
    await until_async(lambda: sum(one.done() for one in greedy) > 5)
    reached, waiting = len(calls), [one for one in greedy if not one.done()]
    assert len(waiting) >= 8
    visit.sent.clear()
    await visit()
    assert visit.status == 503
    assert len(calls) == reached, "the queue is not asked while it is as long"
    for one in waiting:
        one.cancel()
    gate.set()
    await asyncio.wait(waiting)
    visit.sent.clear()
    await visit()
    assert visit.status == 200
    assert len(calls) == reached + 1


async def test_one_key_leaves_places_for_the_others() -> None:
    crowd = Crowd()
    other, other_entry = new_key("other", ("read",))
    visit = MiddlewareClient(crowd.app, headers=(KEY,), keys=[ENTRY, other_entry], **PLACES)
    await crowd.enter(visit, 6)
    await visit()
    assert visit.status == 429
    assert visit.headers[b"retry-after"] == b"1"
    assert b"serving.limits.share" in visit.sent[-1]["body"]
    visit.sent.clear()
    visit.scope["headers"] = [(b"authorization", f"Bearer {other}".encode())]
    await crowd.enter(visit, 1)
    await crowd.end()
    assert visit.status == 200


@pytest.mark.parametrize("kind", ["key", "address"])
async def test_who_asks_too_often_waits_and_others_do_not(kind: str) -> None:
    visit = MiddlewareClient(answer, headers=(KEY,), keys=[ENTRY], limits={f"{kind}_rate": 0.5})
    visit.scope["client"] = ("203.0.113.9", 1)
    statuses = []
    for _ in range(7):
        visit.sent.clear()
        await visit()
        statuses.append(visit.status)
    assert statuses == [200] * 5 + [429] * 2
    assert f"serving.limits.{kind}_rate".encode() in visit.sent[-1]["body"]


def test_a_rate_recovers_with_time_and_what_was_owed_is_paid() -> None:
    now = 0.0
    limit = RateLimit(2, 10, lambda: now)
    assert limit.take("a", 15)
    assert limit.take("b", 15), "each client has its own"
    now = 2.0
    assert not limit.take("a")
    now = 3.0
    assert limit.take("a")
