"""OpenTelemetry spans of one process: off without `tracing.endpoint`; sent by OTLP over HTTP, from a thread of their own, and dropped where
it can't follow.

A span says what ran, how long, and how it ended, by codes and counts: never what a user wrote. Between processes the context travels with
each message (`serve.graph.wire.WireMessage`). Does not know Ray.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from matinee.settings.addresses import is_inside
from matinee.settings.serving import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_W3C = TraceContextTextMapPropagator()
_CARRIED = (b"traceparent", b"tracestate")
# A collector that does not answer must not hold up the end of a replica.
_SEND_S = 3


class Waited(Protocol):
    """A message that waited in a queue, since a `time.monotonic()` moment."""

    @property
    def message(self) -> object: ...
    @property
    def since(self) -> float: ...
    @property
    def traceparent(self) -> str | None: ...


def traceparent() -> str | None:
    """The span that is under way here, as W3C writes it; None where nothing is recorded."""
    if not otel.get_current_span().is_recording():
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


class Tracing:
    """The spans of one part of the graph."""

    def __init__(self, settings: TracingSettings, part: str) -> None:
        self._provider = None if settings.endpoint is None else _provider(settings, settings.endpoint, part)
        self._tracer: otel.Tracer = otel.NoOpTracer() if self._provider is None else self._provider.get_tracer("matinee")

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[otel.Span]:
        """The span of an HTTP request, below the caller's own where a `traceparent` came with it."""
        if self._provider is None:
            yield otel.INVALID_SPAN
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        with self._start("request", context=_W3C.extract(carrier), kind=otel.SpanKind.SERVER) as span:
            yield span

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span of what happens inside, below the one that is under way."""
        if self._provider is None:
            yield
            return
        with self._start(name) as span:
            try:
                yield
            except Exception as error:
                span.set_status(otel.StatusCode.ERROR, getattr(error, "code", "internal"))
                raise

    def messages(self, part: str, batch: Sequence[Waited], results: Sequence[object], start: float) -> None:
        """Spans for the messages of a batch that was handled from `start`, a `time.monotonic()` moment, until now.

        Each is below the span that sent it.

        `results` holds a `MatineeError` for each message that failed, and is shorter than the batch if the work itself broke.
        """
        if self._provider is None:
            return
        end, took = time.time_ns(), time.monotonic() - start
        broken = [RuntimeError()] * (len(batch) - len(results))
        for queued, result in zip(batch, [*results, *broken], strict=True):
            if queued.traceparent is None:
                continue
            span = self._tracer.start_span(
                part,
                context=_W3C.extract({"traceparent": queued.traceparent}),
                kind=otel.SpanKind.SERVER,
                start_time=end - int(took * 1e9),
                attributes={
                    "matinee.unit": type(queued.message).__name__,
                    "matinee.batch": len(batch),
                    "matinee.outcome": (outcome := _outcome(result)),
                    "matinee.waited_ms": round((start - queued.since) * 1000, 2),
                },
            )
            if outcome != "ok":
                span.set_status(otel.StatusCode.ERROR, outcome)
            span.end(end)

    def _start(
        self, name: str, context: Context | None = None, kind: otel.SpanKind = otel.SpanKind.INTERNAL
    ) -> AbstractContextManager[otel.Span]:
        # An exception's message may hold what a user wrote.
        return self._tracer.start_as_current_span(name, context, kind, record_exception=False, set_status_on_exception=False)

    def close(self) -> None:
        """Send what waits, within seconds."""
        if self._provider is not None:
            self._provider.shutdown()


def _outcome(result: object) -> str:
    return str(getattr(result, "code", "internal")) if isinstance(result, Exception) else "ok"


def trace_id(span: otel.Span) -> str | None:
    """The trace's id in hex, where it is recorded."""
    return otel.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None


def _provider(settings: TracingSettings, endpoint: str, part: str) -> "TracerProvider":
    # Imported here, because most processes never trace.
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    url = f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create(
            {"service.name": f"matinee-{part}", "service.namespace": "matinee", "service.version": version("matinee")}
        ),
        shutdown_on_exit=False,
    )
    session = requests.Session()
    session.trust_env = not is_inside(url)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=_SEND_S, session=session)))
    return provider
