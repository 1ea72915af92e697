"""The middleware on its own: what it counts, and what it does with apps that misbehave. Its answers over HTTP: `test_api*`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from matinee.errors import DeadlineError
from matinee.settings.serving import ServingSettings, TracingSettings
from serve.api.middleware import RequestMiddleware
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import MemorySink
from serve.telemetry.tracing import Tracing

App = Callable[[Any, Any, Any], Awaitable[None]]


class Visit:
    """One request to the middleware around `app`."""

    def __init__(self, app: App, *, path: str = "/v1/x", headers: tuple[tuple[bytes, bytes], ...] = (), **settings: Any) -> None:
        self.sink = MemorySink()
        limits = {"deployment": {"max_ongoing_requests": 1, "target_ongoing_requests": 1}} | settings
        names = limits.pop("names_requests", True)
        tracing = Tracing(TracingSettings(), "gateway")
        self.middleware = RequestMiddleware(app, ServingSettings.model_validate(limits), Metrics(self.sink), tracing, names_requests=names)
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        self.sent: list[dict[str, Any]] = []

    async def __call__(self, path: str | None = None) -> "Visit":
        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.middleware(dict(self.scope) | ({"path": path} if path else {}), self.receive, send)
        return self

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 600, "more_body": True}

    @property
    def status(self) -> int:
        return int(next(message["status"] for message in self.sent if message["type"] == "http.response.start"))

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(next(message["headers"] for message in self.sent if message["type"] == "http.response.start"))

    def counted(self, **tags: str) -> float:
        return self.sink.values.get(("matinee_requests", tuple(sorted(tags.items()))), 0)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def raising(error: Exception, *, after_start: bool = False) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


async def test_an_answer_gets_its_headers_and_is_counted() -> None:
    visit = await Visit(answer)()
    assert visit.status == 200
    assert visit.headers[b"x-content-type-options"] == b"nosniff"
    assert visit.headers[b"server-timing"].startswith(b"total;dur=")
    assert len(visit.headers[b"x-request-id"]) == 32
    assert visit.counted(endpoint="none", outcome="ok") == 1


async def test_the_request_id_is_left_to_who_stands_in_front() -> None:
    visit = await Visit(answer, names_requests=False)()
    assert b"x-request-id" not in visit.headers


async def test_our_errors_become_envelopes_and_outcomes() -> None:
    visit = await Visit(raising(DeadlineError("late")))()
    assert visit.status == 504
    assert visit.counted(endpoint="none", outcome="deadline") == 1


async def test_a_bug_before_the_answer_is_a_500_and_after_its_start_is_raised() -> None:
    visit = await Visit(raising(KeyError("x")))()
    assert visit.status == 500
    assert visit.counted(endpoint="none", outcome="internal") == 1
    late = Visit(raising(KeyError("x"), after_start=True))
    with pytest.raises(KeyError):
        await late()
    assert len(late.sent) == 1
    assert late.counted(endpoint="none", outcome="internal") == 1


async def test_a_place_is_given_back_whatever_happens() -> None:
    for app in (answer, raising(DeadlineError("late")), raising(KeyError("x"))):
        visit = Visit(app)
        for _ in range(3):
            await visit()
            assert visit.status in (200, 500, 504)
        assert ("matinee_refused", ()) not in visit.sink.values


async def test_when_it_is_full_the_next_one_is_refused_but_probes_pass() -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/slow":
            inside.set()
            await leave.wait()
        await answer(scope, receive, send)

    visit = Visit(slow, headers=((b"x-request-id", b"mine"),))
    first = asyncio.create_task(visit("/v1/slow"))
    await inside.wait()
    await visit()
    assert visit.status == 503
    assert visit.headers[b"retry-after"] == b"1"
    assert visit.headers[b"x-request-id"] == b"mine"
    assert visit.headers[b"x-content-type-options"] == b"nosniff"
    assert visit.sink.values["matinee_refused", ()] == 1
    for probe in ("/livez", "/readyz"):
        visit.sent.clear()
        await visit(probe)
        assert visit.status == 200
    leave.set()
    await first
    visit.sent.clear()
    await visit()
    assert visit.status == 200


async def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    inside = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if not inside.is_set():
            inside.set()
            await asyncio.Event().wait()
        await answer(scope, receive, send)

    visit = Visit(slow)
    first = asyncio.create_task(visit())
    await inside.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await visit()
    assert visit.status == 200


async def test_a_body_is_counted_as_it_comes() -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()

    visit = await Visit(reader, max_body_bytes=1024)()
    assert visit.status == 413


async def test_a_body_that_does_not_come_gives_its_place_back() -> None:
    async def reader(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    visit = Visit(reader, deadline_s=0.01, drain_s=1)
    visit.receive = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    await visit()
    assert visit.status == 408
    assert b"late_body" in visit.sent[-1]["body"]
    visit.sent.clear()
    await visit()
    assert visit.status == 408, "the place is free again: it is not refused as one too many"


async def test_after_its_body_a_client_may_wait_for_long() -> None:
    async def patient(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        assert not first["more_body"]
        await receive()
        await answer(scope, receive, send)

    visit = Visit(patient, deadline_s=0.01)
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

    visit = await Visit(reader, headers=((b"content-length", declared),), max_body_bytes=1024)()
    assert visit.status == status


async def test_other_protocols_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    visit = Visit(app)
    visit.scope = {"type": "lifespan"}
    await visit()
    assert seen == ["lifespan"]
