"""The middleware of every request: its id, admission, the body limit, errors as envelopes, timing, metrics, its span and its log line.

Admission comes first and reads no body: headers, host, key, then a place for the request. Pure ASGI, because a wrapped response body
would cost more than the whole routing. Does not know routes or models.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from opentelemetry.trace import Span, StatusCode
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.errors import MatineeError, OverloadedError
from matinee.settings.serving import Scope as KeyScope
from matinee.settings.serving import ServingSettings
from serve.api.admission import API, BELOW, CATALOGUES, NO_ROUTE, SECURITY_HEADERS, Admission, request_id, split_catalogue
from serve.api.auth import SERVER, About, ApiKeys, Caller, NeededScope, RouteMatch
from serve.api.bodies import UnreadError, limit_body, limit_sending, limit_slowness
from serve.api.clients import ClientAddresses, TrustedHosts
from serve.api.decoding import decode_body
from serve.api.errors import envelope, explain, outcome
from serve.api.limits import ClientLimits
from serve.api.redact import is_hidden
from serve.api.served_catalogues import ServedCatalogues
from serve.api.unknown_routes import UnknownRoutes
from serve.errors import RequestError
from serve.graph.context import RequestContext
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing, trace_id

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})


@dataclass
class _OngoingRequest:
    """One request on its way through."""

    scope: Scope
    request_id: str
    context: RequestContext
    span: Span
    start: float
    caller: Caller
    status: int = 0
    outcome: str = "ok"
    catalogue: str = NO_ROUTE
    reasons: list[str] = field(default_factory=list)
    """Texts of errors that the response does not show to everybody."""

    @property
    def ms(self) -> float:
        return (time.perf_counter() - self.start) * 1000

    @property
    def endpoint(self) -> str:
        return getattr(self.scope.get("route"), "name", None) or NO_ROUTE


class RequestMiddleware:
    """Wraps the app. Sets `request_id`, `context`, `caller` and `reasons` in the request's state. Refuses what is above a limit."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServingSettings,
        keys: ApiKeys,
        scopes: Sequence[NeededScope],
        streamed: Sequence[RouteMatch],
        metrics: Metrics,
        tracing: Tracing,
        admission: Admission,
        catalogues: ServedCatalogues,
        unknown: UnknownRoutes,
    ) -> None:
        self._app = app
        self._keys = keys
        # What a key needs where nothing says more: to read.
        self._scopes = [needed for needed in scopes if needed.scope != "read"]
        self._streamed = streamed
        self._tracing = tracing
        self._settings = settings
        self._metrics = metrics
        self._admission = admission
        self._catalogues = catalogues
        self._unknown = unknown
        self._hosts = TrustedHosts((settings.host, *settings.hosts))
        self._addresses = ClientAddresses(settings)
        self._clients = ClientLimits(settings.limits, admission.limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = limit_sending(send, self._settings.deadline_s)
        catalogue, inner = split_catalogue(_path(scope))
        if catalogue is not None:
            # The routes of the default catalogue answer for it.
            scope = dict(scope) | {"path": scope.get("root_path", "") + inner}
        with ExitStack() as held:
            # A response that ends too early: the server closes the connection.
            held.enter_context(suppress(UnreadError))
            try:
                caller = self._caller(scope, catalogue)
                if _path(scope).startswith(API):
                    held.enter_context(self._hold(scope, caller))
            except MatineeError as error:
                await self._admission.refusal(error, scope["headers"])(scope, receive, send)
                return
            request = held.enter_context(self._track(scope, caller))

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                    if request.status >= 400 and request.outcome == "ok":
                        request.outcome = str(request.status)
                    message["headers"] = [*message["headers"], *self._headers(request)]
                await send(message)

            try:
                if catalogue is not None:
                    served = scope["state"]["catalogue"] = await self._catalogues.find(catalogue, caller, request.context)
                    request.catalogue = served.name
                await self._app(scope, self._body(scope, receive), send_with_headers)
            except UnreadError:
                request.outcome = "cancelled"
                raise
            except Exception as error:
                response = self._error_response(error, request)
                if request.status:
                    raise
                await response(scope, receive, send_with_headers)

    def _caller(self, scope: Scope, catalogue: str | None) -> Caller:
        """Who sent it, by its headers alone. Raises where they are too large, or where the host or the key is not accepted."""
        headers, limits = scope["headers"], self._settings.limits
        size = sum(len(name) + len(value) for name, value in headers) + len(scope["path"]) + len(scope.get("query_string", b""))
        if len(headers) > limits.header_count or size > limits.header_bytes:
            sizes = f"{len(headers)} headers with {size} bytes, at most {limits.header_count} with {limits.header_bytes} are allowed"
            raise RequestError(431, f"{sizes} (serving.limits); send fewer")
        if not self._keys.exist:
            self._hosts.check(headers)
        peer, _ = scope.get("client") or (None, None)
        address = self._addresses.find(peer, headers)
        path = _path(scope)
        if not path.startswith(API):
            return Caller(self._keys, address=address)
        sent = next((value.decode("latin-1") for name, value in headers if name == b"authorization"), None)
        read: KeyScope = "read"
        needed = next((needed.scope for needed in self._scopes if needed.covers(scope["method"], path)), read)
        caller = Caller(self._keys, self._keys.identify(sent), address, self._about(scope["method"], path, catalogue, needed))
        if path != CATALOGUES or needed != "read":
            # Of the list, everybody sees what they may use.
            caller.require(needed)
        return caller

    def _about(self, method: str, path: str, catalogue: str | None, needed: KeyScope) -> About:
        """What a request is about. To create and to delete catalogues is about the server, to change one about it alone."""
        default = self._catalogues.default.name
        if catalogue is None and (path == CATALOGUES or path.startswith(BELOW)):
            if needed == "admin" and method != "PATCH":
                return SERVER
            catalogue = path[len(BELOW) :].partition("/")[0] or None
        return About(catalogue or default, default=catalogue in (None, default))

    def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The body as the app may read it: a whole one below a limit of bytes, a streamed one above a lowest rate."""
        if any(route.covers(scope["method"], _path(scope)) for route in self._streamed):
            return decode_body(scope, limit_slowness(receive, self._settings.bulk), None)
        return decode_body(scope, limit_body(scope, receive, self._settings), self._settings.max_body_bytes)

    @contextmanager
    def _hold(self, scope: Scope, caller: Caller) -> Iterator[None]:
        """Holds a place for a request. Raises where the gateway or a queue behind it is full, or the caller has enough."""
        catalogue = self._share(caller)
        self._admission.check(scope["method"], _path(scope), catalogue)
        with self._clients.admit(caller), self._admission.hold(catalogue):
            yield

    def _share(self, caller: Caller) -> str:
        """Whose places a request takes: those of its catalogue, where there is one of this name. Clients may invent any other."""
        name = None if caller.about.default else caller.about.catalogue
        return name if name is not None and self._catalogues.knows(name) else ""

    @contextmanager
    def _track(self, scope: Scope, caller: Caller) -> Iterator[_OngoingRequest]:
        """A request that was let in; records it at its end."""
        with self._tracing.request(scope["headers"]) as span:
            state = scope.setdefault("state", {})
            context = RequestContext(time.monotonic() + self._settings.deadline_s, self._tracing.stage)
            request = _OngoingRequest(scope, request_id(scope["headers"]), context, span, time.perf_counter(), caller)
            if caller.about.default and caller.about.catalogue is not None:
                request.catalogue = caller.about.catalogue
            state |= {
                "request_id": request.request_id,
                "context": context,
                "caller": caller,
                "reasons": request.reasons,
                "catalogue": self._catalogues.default,
            }
            try:
                yield request
            finally:
                self._record(request)

    def _error_response(self, error: Exception, request: _OngoingRequest) -> Response:
        """The response to what the app raised; a bug is logged."""
        if isinstance(error, OverloadedError) and error.wait_s:
            self._admission.record(request.scope["method"], _path(request.scope), error.wait_s, self._share(request.caller))
        if isinstance(error, HTTPException):
            route = getattr(request.scope.get("route"), "path", None)
            error = self._unknown.explain(error, request.scope["method"], request.scope["path"], route)
        response = explain(error, request.request_id, request.caller, retry_after_s=self._settings.retry_after_s)
        if response is None:
            fields = {"request_id": request.request_id, "trace_id": trace_id(request.span), "endpoint": request.endpoint}
            log.exception("request failed", extra={"fields": {key: value for key, value in fields.items() if value}})
            message = "something broke here; the server's log has it under this request id"
            response = envelope(500, "internal", message, request.request_id)
        if is_hidden(error):
            request.reasons.append(str(error))
        request.outcome = outcome(error, response.status_code)
        return response

    def _headers(self, request: _OngoingRequest) -> list[tuple[bytes, bytes]]:
        headers = [*SECURITY_HEADERS, _timing(request.context, request.ms)]
        if self._admission.names_requests:
            headers.append((b"x-request-id", request.request_id.encode()))
        if traced := trace_id(request.span):
            headers.append((b"x-trace-id", traced.encode()))
        return headers

    def _record(self, request: _OngoingRequest) -> None:
        endpoint, ms = request.endpoint, request.ms
        if not request.status:
            request.outcome = "cancelled"
        self._metrics.requests(endpoint=endpoint, outcome=request.outcome, catalogue=request.catalogue)
        self._metrics.latency(ms, endpoint=endpoint)
        for stage, spent in request.context.stages.items():
            self._metrics.stage(spent, stage=stage)
        if request.span.is_recording():
            _describe_span(request)
        state = request.scope["state"]
        fields = {
            "request_id": request.request_id,
            "trace_id": trace_id(request.span),
            "endpoint": endpoint,
            "catalogue": request.catalogue,
            "status": request.status,
            "outcome": request.outcome,
            "ms": round(ms, 2),
            "stages": {stage: round(spent, 2) for stage, spent in request.context.stages.items()},
            "degraded": request.context.degraded,
            "reasons": list(dict.fromkeys(request.reasons)),
            "key": request.caller.key,
            "text": state.get("text") if self._settings.log_texts else None,
        }
        logs.request(log, request.status, fields)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _describe_span(request: _OngoingRequest) -> None:
    """The span's name and attributes, once they are known. Never the path or the query as they came: they may hold what a user wrote."""
    path, method = getattr(request.scope.get("route"), "path", None), request.scope["method"]
    known = method if method in _METHODS else "_OTHER"
    request.span.update_name(known if path is None else f"{known} {path}")
    request.span.set_attributes(
        {
            "http.request.method": known,
            "http.response.status_code": request.status,
            "matinee.endpoint": request.endpoint,
            "matinee.outcome": request.outcome,
            "matinee.catalogue": request.catalogue,
            "matinee.request_id": request.request_id,
            "matinee.degraded": request.context.degraded,
        }
        | ({} if path is None else {"http.route": path})
    )
    if request.status >= 500:
        request.span.set_status(StatusCode.ERROR, request.outcome)


def _timing(context: RequestContext, total_ms: float) -> tuple[bytes, bytes]:
    stages = [*context.stages.items(), ("total", total_ms)]
    return b"server-timing", ", ".join(f"{name};dur={ms:.2f}" for name, ms in stages).encode()
