"""The middleware around an app of a test: one request, or many at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from matinee.settings.load import load_settings
from matinee.settings.serving import ServingSettings, TracingSettings
from serve.api.admission import Admission
from serve.api.auth import ApiKeys, new_key
from serve.api.middleware import RequestMiddleware
from serve.api.served_catalogues import ServedCatalogues
from serve.api.unknown_routes import UnknownRoutes
from serve.graph.bulk import Bulk
from serve.graph.concurrency import Sharing
from serve.graph.gateway import Gateway
from serve.graph.parts import Graph
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing
from tests.memory_sink import MemorySink

App = Callable[[Any, Any, Any], Awaitable[None]]


async def no_part(message: Any, deadline: float) -> Any:
    raise AssertionError("these requests need no part of the graph")


class MiddlewareClient:
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
        self.middleware = RequestMiddleware(
            app, serving, ApiKeys(serving), [], [], metrics, tracing, self.admission, catalogues, UnknownRoutes([])
        )
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        self.sent: list[dict[str, Any]] = []

    async def __call__(self, path: str | None = None) -> "MiddlewareClient":
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


READER, ENTRY = new_key("reader", ("read",))


KEY = (b"authorization", f"Bearer {READER}".encode())


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

    async def enter(self, visit: MiddlewareClient, count: int) -> None:
        self.tasks += [asyncio.create_task(visit()) for _ in range(count)]
        async with self.changed:
            await self.changed.wait_for(lambda: self.inside == len(self.tasks))

    async def end(self) -> None:
        self.leave.set()
        await asyncio.gather(*self.tasks)


PLACES = {"deployment": {"max_ongoing_requests": 8, "target_ongoing_requests": 1}}
