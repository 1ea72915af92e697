"""The middleware on its own: what it counts, and what it does with apps that misbehave. Its answers over HTTP: `test_api*`."""

import asyncio
from typing import Any

import pytest

from matinee.errors import DeadlineError
from tests.serve.api.middleware_client import ENTRY, KEY, App, Crowd, MiddlewareClient, answer


def raising(error: Exception, *, after_start: bool = False) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


async def test_an_answer_gets_its_headers_and_is_counted() -> None:
    visit = await MiddlewareClient(answer)()
    assert visit.status == 200
    assert visit.headers[b"x-content-type-options"] == b"nosniff"
    assert visit.headers[b"server-timing"].startswith(b"total;dur=")
    assert len(visit.headers[b"x-request-id"]) == 32
    assert visit.counted(endpoint="none", outcome="ok") == 1


async def test_the_request_id_is_left_to_who_stands_in_front() -> None:
    visit = await MiddlewareClient(answer, names_requests=False)()
    assert b"x-request-id" not in visit.headers


async def test_our_errors_become_envelopes_and_outcomes() -> None:
    visit = await MiddlewareClient(raising(DeadlineError("late")))()
    assert visit.status == 504
    assert visit.counted(endpoint="none", outcome="deadline") == 1


async def test_a_bug_before_the_answer_is_a_500_and_after_its_start_is_raised() -> None:
    visit = await MiddlewareClient(raising(KeyError("x")))()
    assert visit.status == 500
    assert visit.counted(endpoint="none", outcome="internal") == 1
    late = MiddlewareClient(raising(KeyError("x"), after_start=True))
    with pytest.raises(KeyError):
        await late()
    assert len(late.sent) == 1
    assert late.counted(endpoint="none", outcome="internal") == 1


async def test_a_place_is_given_back_whatever_happens() -> None:
    for app in (answer, raising(DeadlineError("late")), raising(KeyError("x"))):
        visit = MiddlewareClient(app)
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

    visit = MiddlewareClient(slow, headers=((b"x-request-id", b"mine"),))
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

    visit = MiddlewareClient(slow)
    first = asyncio.create_task(visit())
    await inside.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await visit()
    assert visit.status == 200


async def body_reader(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await answer(scope, receive, send)


async def test_many_unfinished_bodies_without_a_key_take_no_place() -> None:
    """The attack: each holds its connection open, and one place is all that there is."""
    visit = MiddlewareClient(body_reader, keys=[ENTRY])
    finish = visit.receive
    visit.receive = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    for headers in ([], [(b"authorization", b"Bearer mat_wrong")], [(b"authorization", b"Basic x")]) * 10:
        visit.sent.clear()
        visit.scope["headers"] = headers
        await visit()
        assert visit.status == 401
        assert visit.headers[b"www-authenticate"] == b"Bearer"
    assert visit.counted(catalogue="none", endpoint="none", outcome="unauthorized") == 30
    visit.receive = finish  # type: ignore[method-assign]
    visit.sent.clear()
    visit.scope["headers"] = [KEY]
    await visit()
    assert visit.status == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/static/app.js", "/livez", "/readyz"])
async def test_what_needs_no_key_is_open_on_a_server_with_keys(path: str) -> None:
    assert (await MiddlewareClient(answer, keys=[ENTRY], path=path)()).status == 200


@pytest.mark.parametrize(
    "extra",
    [
        {"headers": [(b"x-filler", b"x")] * 101},
        {"headers": [(b"x-filler", b"x" * 17_000)]},
        {"headers": [], "query_string": b"x" * 17_000},
        {"headers": [], "path": "/" + "x" * 17_000},
    ],
    ids=["many", "long", "query", "path"],
)
async def test_too_many_or_too_large_headers_are_refused(extra: dict[str, Any]) -> None:
    visit = MiddlewareClient(answer)
    visit.scope |= extra
    await visit()
    assert visit.status == 431
    assert b"serving.limits" in visit.sent[-1]["body"]


async def test_probes_hold_no_place() -> None:
    crowd = Crowd()
    visit = MiddlewareClient(crowd.app, path="/readyz")
    await crowd.enter(visit, 5)
    assert visit.sink.values.get(("matinee_in_flight_requests", ())) is None
    await crowd.end()


async def test_other_protocols_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    visit = MiddlewareClient(app)
    visit.scope = {"type": "lifespan"}
    await visit()
    assert seen == ["lifespan"]
