"""What every request passes on its way in and out: a request id, admission, the body limit, errors as envelopes, timing, metrics.

Pure ASGI, because a wrapped response body would cost more than the whole routing. Does not know routes or models.
"""

import logging
import time
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.settings import ServingSettings
from serve.errors import envelope, explain
from serve.errors import outcome as name_of
from serve.graph import Trace
from serve.metrics import Metrics

log = logging.getLogger(__name__)

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
# Digits of any length that is possible: a longer number is not worth reading, and Python refuses some.
_LONGEST = 18
_UNCOUNTED = {"/livez", "/readyz"}


class Door:
    """Wraps the app. Sets `request_id` and `trace` in the request's state; refuses what is too much or too large.

    `names_requests`: answers carry `X-Request-Id`; False where something in front of the app adds it already.
    """

    def __init__(self, app: ASGIApp, settings: ServingSettings, metrics: Metrics, *, names_requests: bool = True) -> None:
        self._app = app
        self._names_requests = names_requests
        self._settings = settings
        self._metrics = metrics
        self._limit = settings.deployment.max_ongoing_requests
        self._ongoing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._ongoing >= self._limit and scope["path"] not in _UNCOUNTED:
            self._metrics.refused()
            await self._refuse(scope, receive, send)
            return
        self._ongoing += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._ongoing -= 1

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, message = _request_id(scope), f"{self._limit} requests are under way here; ask again in a moment"
        response = envelope(503, "overloaded", message, request_id, retry_after_s=self._settings.retry_after_s)
        response.raw_headers += [*_HEADERS, *([(b"x-request-id", request_id.encode())] if self._names_requests else [])]
        await response(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        trace = state["trace"] = Trace(time.time() + self._settings.deadline_s)
        outcome = "ok"
        sent = False

        async def send_with_headers(message: Message) -> None:
            nonlocal sent, outcome
            if message["type"] == "http.response.start":
                sent = True
                if message["status"] >= 400 and outcome == "ok":
                    outcome = state.get("outcome", str(message["status"]))
                message["headers"] = [*message["headers"], *_HEADERS, _timing(trace, time.perf_counter() - start)]
                if self._names_requests:
                    message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive, self._settings.max_body_bytes), send_with_headers)
        except Exception as error:
            response = explain(error, request_id, retry_after_s=self._settings.retry_after_s)
            if response is None:
                log.exception("request %s failed", request_id)
                response = envelope(500, "internal", "something broke here; the server's log has it under this request id", request_id)
            outcome = name_of(error, response.status_code)
            if sent:
                raise
            await response(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "name", None) or "none"
            self._metrics.requests(endpoint=endpoint, outcome=str(outcome))
            self._metrics.latency((time.perf_counter() - start) * 1000, endpoint=endpoint)
            for stage, ms in trace.stages.items():
                self._metrics.stage(ms, stage=stage)


def _request_id(scope: Scope) -> str:
    """The `X-Request-Id` that came (from the caller, or from Serve in front of this), else a new one."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex


def _timing(trace: Trace, seconds: float) -> tuple[bytes, bytes]:
    stages = [*trace.stages.items(), ("total", seconds * 1000)]
    return b"server-timing", ", ".join(f"{name};dur={ms:.2f}" for name, ms in stages).encode()


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive`, refusing a body above `limit` bytes as soon as that is known (by an HTTPException: FastAPI hides any other)."""
    message = f"the body is above {limit} bytes (serving.max_body_bytes); send less, or in several requests"
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and (len(declared) > _LONGEST or int(declared) > limit):

        async def refuse() -> Any:
            raise HTTPException(413, message)

        return refuse
    received = 0

    async def counted() -> Message:
        nonlocal received
        event = await receive()
        if event["type"] == "http.request":
            received += len(event.get("body", b""))
            if received > limit:
                raise HTTPException(413, message)
        return event

    return counted
