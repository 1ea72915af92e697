"""A collector that speaks OTLP over HTTP: what `serve.telemetry.tracing` sends, as a real one would take it. Does not know pytest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.waiting import HANG_S


@dataclass(frozen=True)
class Span:
    """One span that came in."""

    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    ms: float
    attributes: dict[str, Any]
    error: str | None


class Collector:
    """The spans so far, and where to send more."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []

    def of(self, trace_id: str | None) -> dict[tuple[str, str], Span]:
        """(service, name) -> span, of one trace."""
        return {(span.service, span.name): span for span in list(self.spans) if span.trace_id == trace_id}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.bodies.append(body)
            found.spans += _spans(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="collector", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANG_S)


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            service=_attributes(resource.resource.attributes)["service.name"],
            name=span.name,
            trace_id=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            ms=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
            attributes=_attributes(span.attributes),
            error=span.status.message or None,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
