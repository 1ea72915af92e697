"""The middleware on its own: what it counts, and what it does with apps that misbehave. Its answers over HTTP: `test_api*`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from matinee.errors import DeadlineError, OverloadedError
from matinee.settings.load import load_settings
from matinee.settings.serving import ServingSettings, TracingSettings
from serve.api.admission import Admission
from serve.api.auth import ApiKeys, new_key
from serve.api.limits import BusyRoutes, RateLimit
from serve.api.middleware import RequestMiddleware
from serve.api.served_catalogues import ServedCatalogues
from serve.graph.bulk import Bulk
from serve.graph.concurrency import Sharing
from serve.graph.gateway import Gateway
from serve.graph.microbatch import Lane, MicroBatcher
from serve.graph.parts import Graph
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until_async

App = Callable[[Any, Any, Any], Awaitable[None]]


async def no_part(message: Any, deadline: float) -> Any:
    raise AssertionError("these requests need no part of the graph")


class Visit:
    """One request to the middleware around `app`."""

    def __init__(self, app: App, *, path: str = "/v1/x", headers: tuple[tuple[bytes, bytes], ...] = (), **settings: Any) -> None:
        self.sink = MemorySink()
        limits = {"deployment": {"max_ongoing_requests": 1, "target_ongoing_requests": 1}} | settings
        names = limits.pop("names_requests", True)
        tracing = Tracing(TracingSettings(), "gateway")
        serving = ServingSettings.model_validate(limits)
        metrics = Metrics(self.sink)
        self.admission = Admission(serving, metrics, names_requests=names)
        service = Gateway(load_settings(environ={}), Graph(no_part, no_part, None, {}), metrics)
        catalogues = ServedCatalogues(service, Bulk(serving.bulk, serving.deadline_s), Sharing())
        self.middleware = RequestMiddleware(app, serving, ApiKeys(serving), [], [], metrics, tracing, self.admission, catalogues)
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
        return self.sink.values.get(("matinee_requests", tuple(sorted({"catalogue": "demo", **tags}.items()))), 0)


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


async def test_a_queue_that_refused_is_not_asked_again_until_an_eighth_of_it_has_left() -> None:
    calls, now = [], [0.0]

    async def full(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        raise OverloadedError("embedder: 90 requests wait already", 4.5)

    visit = Visit(full, path="/v1/search", names_requests=False)
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

    visit = Visit(search, deployment={"max_ongoing_requests": 100, "target_ongoing_requests": 1})
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

    visit = Visit(reader, limits={"body_s": 0.01})
    visit.receive = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    await visit()
    assert visit.status == 408
    assert b"late_body" in visit.sent[-1]["body"]
    visit.sent.clear()
    await visit()
    assert visit.status == 408, "the place is free again: it is not refused as one too many"


async def test_an_answer_that_is_not_read_gives_its_place_back() -> None:
    visit = Visit(answer, deadline_s=0.01)
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

    visit = Visit(patient, limits={"body_s": 0.01})
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


READER, ENTRY = new_key("reader", ("read",))
KEY = (b"authorization", f"Bearer {READER}".encode())


async def body_reader(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await answer(scope, receive, send)


async def test_many_unfinished_bodies_without_a_key_take_no_place() -> None:
    """The attack: each holds its connection open, and one place is all that there is."""
    visit = Visit(body_reader, keys=[ENTRY])
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
    assert (await Visit(answer, keys=[ENTRY], path=path)()).status == 200


class Crowd:
    """Requests that are under way until `leave` is set."""

    def __init__(self) -> None:
        self.inside, self.leave = 0, asyncio.Event()
        self.changed = asyncio.Condition()
        self.tasks: list[asyncio.Task[Any]] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.leave.is_set():
            async with self.changed:
                self.inside += 1
                self.changed.notify_all()
            await self.leave.wait()
        await answer(scope, receive, send)

    async def enter(self, visit: Visit, count: int) -> None:
        self.tasks += [asyncio.create_task(visit()) for _ in range(count)]
        async with self.changed:
            await self.changed.wait_for(lambda: self.inside == len(self.tasks))

    async def end(self) -> None:
        self.leave.set()
        await asyncio.gather(*self.tasks)


PLACES = {"deployment": {"max_ongoing_requests": 8, "target_ongoing_requests": 1}}


async def test_one_key_leaves_places_for_the_others() -> None:
    crowd = Crowd()
    other, other_entry = new_key("other", ("read",))
    visit = Visit(crowd.app, headers=(KEY,), keys=[ENTRY, other_entry], **PLACES)
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


@pytest.mark.parametrize(
    ("client", "forwarded", "status"),
    [
        ("203.0.113.9", "", 429),
        ("203.0.113.9", "198.51.100.1", 429),
        ("203.0.113.10", "203.0.113.9", 200),
        ("10.0.0.7", "198.51.100.1, 203.0.113.9", 429),
        ("10.0.0.7", "203.0.113.9, 198.51.100.1", 200),
        ("10.0.0.7", "203.0.113.9, 10.0.0.8", 429),
        ("10.0.0.7", "203.0.113.9:4711", 429),
        ("10.0.0.7", "::ffff:203.0.113.9", 429),
        ("10.0.0.7", "", 200),
        ("127.0.0.1", "203.0.113.9", 200),
    ],
)
async def test_one_address_leaves_places_for_the_others_and_only_trusted_proxies_name_it(client: str, forwarded: str, status: int) -> None:
    crowd = Crowd()
    visit = Visit(crowd.app, trusted_proxies=["10.0.0.0/8"], **PLACES)
    visit.scope["client"] = ("203.0.113.9", 1)
    await crowd.enter(visit, 6)
    visit.scope |= {"client": (client, 2), "headers": [(b"x-forwarded-for", forwarded.encode())] if forwarded else []}
    if status == 200:
        await crowd.enter(visit, 1)
        await crowd.end()
    else:
        await visit()
    assert visit.status == status
    await crowd.end()


async def test_an_ipv6_client_is_its_network() -> None:
    crowd = Crowd()
    visit = Visit(crowd.app, **PLACES)
    for host in range(6):
        visit.scope["client"] = (f"2001:db8::{host}", 1)
        await crowd.enter(visit, 1)
    visit.scope["client"] = ("2001:db8::ffff", 1)
    await visit()
    assert visit.status == 429
    await crowd.end()


async def test_behind_haproxy_the_peer_is_no_client() -> None:
    crowd = Crowd()
    visit = Visit(crowd.app, haproxy=True, **PLACES)
    visit.scope["client"] = ("10.0.0.7", 1)
    await crowd.enter(visit, 8)
    await crowd.end()
    assert visit.status == 200


@pytest.mark.parametrize("kind", ["key", "address"])
async def test_who_asks_too_often_waits_and_others_do_not(kind: str) -> None:
    visit = Visit(answer, headers=(KEY,), keys=[ENTRY], limits={f"{kind}_rate": 0.5})
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
    visit = Visit(answer)
    visit.scope |= extra
    await visit()
    assert visit.status == 431
    assert b"serving.limits" in visit.sent[-1]["body"]


OPEN_HOSTS = [
    "127.0.0.1:8000", "10.244.1.7:8000", "[::1]:8000", "[fd00::7]", "localhost", "localhost:8000", "LOCALHOST:80", "films.localhost",
    "matinee-serve-svc", "matinee-serve-svc:8000", "0.0.0.0:8000",
]  # fmt: skip


@pytest.mark.parametrize("host", OPEN_HOSTS)
@pytest.mark.parametrize("path", ["/v1/x", "/readyz", "/"])
async def test_without_keys_addresses_localhost_and_the_named_hosts_pass(host: str, path: str) -> None:
    visit = await Visit(answer, path=path, headers=((b"host", host.encode()),), hosts=["Matinee-Serve-Svc"])()
    assert visit.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost", "[evil]", "", "x" * 300],
)
@pytest.mark.parametrize("path", ["/v1/x", "/readyz", "/"])
async def test_a_page_that_rebinds_its_name_gets_nothing(host: str, path: str) -> None:
    visit = await Visit(answer, path=path, headers=((b"host", host.encode()),))()
    assert visit.status == 403
    assert b"serving.hosts" in visit.sent[-1]["body"]


async def test_two_host_headers_must_both_be_trusted() -> None:
    visit = await Visit(answer, headers=((b"host", b"localhost"), (b"host", b"evil.example")))()
    assert visit.status == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),
        ("https://films.example", 200),
        ("https://films.example:8443", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("http://203.0.113.9", 403),
        ("https://evil.example", 403),
        ("https://films.example.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
async def test_without_keys_pages_of_other_sites_are_refused(origin: str, status: int) -> None:
    headers = ((b"host", b"localhost:8000"), (b"origin", origin.encode()))
    assert (await Visit(answer, headers=headers, hosts=["films.example"])()).status == status


async def test_with_keys_the_key_decides_and_no_host() -> None:
    headers = ((b"host", b"films.example"), (b"origin", b"https://shop.example"), KEY)
    assert (await Visit(answer, headers=headers, keys=[ENTRY])()).status == 200


async def test_probes_hold_no_place() -> None:
    crowd = Crowd()
    visit = Visit(crowd.app, path="/readyz")
    await crowd.enter(visit, 5)
    assert visit.sink.values.get(("matinee_in_flight_requests", ())) is None
    await crowd.end()


async def test_other_protocols_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    visit = Visit(app)
    visit.scope = {"type": "lifespan"}
    await visit()
    assert seen == ["lifespan"]
