"""How bodies may travel: below a limit, in time, and read by whoever asked."""

import asyncio
from typing import Any

import pytest

from tests.serve.api.middleware_client import MiddlewareClient, answer


async def test_a_body_is_counted_as_it_comes() -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()

    visit = await MiddlewareClient(reader, max_body_bytes=1024)()
    assert visit.status == 413


async def test_a_body_that_does_not_come_gives_its_place_back() -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    visit = MiddlewareClient(reader, limits={"body_s": 0.01})
    visit.receive = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    await visit()
    assert visit.status == 408
    assert b"late_body" in visit.sent[-1]["body"]
    visit.sent.clear()
    await visit()
    assert visit.status == 408, "the place is free again: it is not refused as one too many"


async def test_an_answer_that_is_not_read_gives_its_place_back() -> None:
    visit = MiddlewareClient(answer, deadline_s=0.01)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    for _ in range(2):
        await visit.middleware(dict(visit.scope), visit.receive, send)
    assert [message.get("status") for message in sent] == [200, None] * 2, "the second one is not refused as one too many"
    assert visit.counted(endpoint="none", outcome="cancelled") == 2


async def test_after_its_body_a_client_may_wait_for_long() -> None:
    async def patient(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        assert not first["more_body"]
        await receive()
        await answer(scope, receive, send)

    visit = MiddlewareClient(patient, limits={"body_s": 0.01})
    told = [{"type": "http.request", "body": b"", "more_body": False}]
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if told:
            return told.pop()
        asyncio.get_running_loop().call_later(0.05, gone.set)
        await gone.wait()
        return {"type": "http.disconnect"}

    visit.receive = receive  # type: ignore[method-assign]
    await visit()
    assert visit.status == 200


@pytest.mark.parametrize(
    ("declared", "status"), [(b"1024", 200), (b"1025", 413), (b"9" * 5000, 413), (b"-1", 200), (b"x", 200), (b"", 200)]
)
async def test_a_declared_length_is_believed_where_it_is_a_number(declared: bytes, status: int) -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answer(scope, receive, send)

    visit = await MiddlewareClient(reader, headers=((b"content-length", declared),), max_body_bytes=1024)()
    assert visit.status == status
