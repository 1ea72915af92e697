"""Every metric that Matinee's replicas export, in one table; Ray scrapes them on each node's metrics port, under the prefix `ray_`.

The README's table is made from `METRICS`, and a test holds both against a real scrape. No ids, texts or keys ever become labels.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric as it is exported: counters end in `_total` on the wire."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)
REPEAT_S = 5.0
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

METRICS: dict[str, Spec] = {
    "requests": Spec(
        "counter", "matinee_requests", "HTTP requests, by endpoint and outcome (the error's code, or ok)", ("endpoint", "outcome")
    ),
    "latency": Spec(
        "histogram", "matinee_request_ms", "Time from a request's arrival at the gateway to its answer, ms", ("endpoint",), _MS
    ),
    "stage": Spec(
        "histogram", "matinee_stage_ms", "Time of one stage of a request, ms: enhance, embed or retrieve, waiting included", ("stage",), _MS
    ),
    "degraded": Spec(
        "counter",
        "matinee_degraded",
        "Answers given without a part, by the error's code: deadline, overloaded or unavailable",
        ("part", "reason"),
    ),
    "refused": Spec("counter", "matinee_refused", "Requests refused at the door because too many were under way", ()),
    "cache": Spec("counter", "matinee_cache", "Look-ups in the gateway's caches of embeddings and descriptions", ("cache", "result")),
    "hop_batch": Spec("histogram", "matinee_hop_batch", "Requests that travelled together in one call to a deployment", ("part",), _SIZES),
    "queue_wait": Spec(
        "histogram", "matinee_queue_wait_ms", "Time from a gateway's call to the moment when the part takes it up, ms", ("part",), _MS
    ),
    "model_batch": Spec("histogram", "matinee_model_batch", "Texts or items that a model handled at once", ("part",), _SIZES),
    "results": Spec("histogram", "matinee_results", "Items in an answer", ("endpoint",), (0.5, 1, 2, 5, 10, 20, 50, 100)),
    "encoded_tokens": Spec("counter", "matinee_encoded_tokens", "Tokens that the embedder read", ()),
    "generated_tokens": Spec("counter", "matinee_generated_tokens", "Tokens that the enhancer wrote", ()),
    "violations": Spec("counter", "matinee_description_violations", "Statements in descriptions that the metadata does not bear out", ()),
    "model_info": Spec(
        "gauge",
        "matinee_model_info",
        "1 for the model that a replica runs, 0 for those it ran before",
        ("part", "model", "precision", "fingerprint"),
    ),
    "model_load_s": Spec("gauge", "matinee_model_load_seconds", "Time that the last model load and warm-up took, s", ("part",)),
    "model_swap_failures": Spec(
        "counter", "matinee_model_swap_failures", "Model updates that failed and left the old model in place", ("part",)
    ),
    "gpu_memory": Spec(
        "gauge", "matinee_gpu_memory_bytes", "GPU memory that a part's process has reserved, where there is a GPU", ("part",)
    ),
    "index_info": Spec(
        "gauge",
        "matinee_index_info",
        "1 for the index version that a Retriever answers from, 0 for those before",
        ("version", "fingerprint"),
    ),
    "index_items": Spec("gauge", "matinee_index_items", "Items in the current index version when it was opened", ()),
    "index_built": Spec(
        "gauge", "matinee_index_built_timestamp_seconds", "When the current index version was made, seconds since 1970", ()
    ),
    "index_up": Spec("gauge", "matinee_index_up", "1 while the index store answers, 0 since a call or the check each second failed", ()),
    "index_errors": Spec("counter", "matinee_index_errors", "Calls that the index did not answer, by the error's code", ("reason",)),
    "in_flight": Spec("gauge", "matinee_in_flight_requests", "Requests that a gateway has let in and not yet answered", ()),
    "events": Spec("counter", "matinee_events", "Events taken for the event log: impressions and feedback", ("kind",)),
    "events_dropped": Spec(
        "counter",
        "matinee_events_dropped",
        "Events that were lost: the queue was full, or the log could not be written at the end",
        ("reason",),
    ),
}


class Metrics:
    """The process's metrics: `metrics.requests(endpoint="search", outcome="ok")` counts, observes or sets by the metric's kind."""

    def __init__(self, sink: "Sink") -> None:
        self._sink = sink

    def __getattr__(self, key: str) -> "Recorder":
        recorder = Recorder(self._sink.make(METRICS[key]), METRICS[key].kind)
        setattr(self, key, recorder)
        return recorder


class Sink(Protocol):
    """Where metrics go."""

    def make(self, spec: Spec) -> Any: ...


class Recorder:
    """One metric, ready to be recorded."""

    def __init__(self, metric: Any, kind: str) -> None:
        self._record = {"counter": "inc", "gauge": "set", "histogram": "observe"}[kind]
        self._call = getattr(metric, self._record)

    def __call__(self, value: float = 1, **tags: str) -> None:
        # Ray raises where a counter is to grow by nothing, which a model that writes no token makes it.
        if value or self._record != "inc":
            self._call(value, tags)


class RaySink:
    """`ray.serve.metrics`: the values carry the deployment and replica that recorded them."""

    def __init__(self) -> None:
        self._gauges: list[RepeatedGauge] = []

    def make(self, spec: Spec) -> Any:
        from ray.serve import metrics as ray_metrics

        if spec.kind == "counter":
            return ray_metrics.Counter(spec.name, description=spec.help, tag_keys=spec.tags)
        if spec.kind == "gauge":
            if not self._gauges:
                threading.Thread(target=self._repeat, name="gauges", daemon=True).start()
            gauge = ray_metrics.Gauge(spec.name, description=spec.help, tag_keys=spec.tags)
            self._gauges.append(RepeatedGauge(gauge, forgets=spec.name.endswith("_info")))
            return self._gauges[-1]
        return ray_metrics.Histogram(spec.name, description=spec.help, boundaries=list(spec.buckets), tag_keys=spec.tags)

    def _repeat(self) -> None:
        while True:
            time.sleep(REPEAT_S)
            for gauge in list(self._gauges):
                gauge.repeat()


class RepeatedGauge:
    """A gauge that says its values again and again: Ray stops exporting one that was not set within two report intervals (20 s).

    With `forgets` a 0 is said once, so that what a replica ran before does not add up to ever more series.
    """

    def __init__(self, gauge: Any, *, forgets: bool = False) -> None:
        self._gauge = gauge
        self._forgets = forgets
        self._lock = threading.Lock()
        self._last: dict[tuple[tuple[str, str], ...], float] = {}

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        with self._lock:
            self._gauge.set(value, dict(tags))
            self._last[tuple(tags.items())] = value
            if self._forgets and not value:
                del self._last[tuple(tags.items())]

    def repeat(self) -> None:
        with self._lock:
            for tags, value in self._last.items():
                self._gauge.set(value, dict(tags))


class NullSink:
    """Records nothing: what the metrics cost is measured against it (`serving.metrics: false`)."""

    def make(self, spec: Spec) -> Any:
        return self

    def inc(self, value: float, tags: Mapping[str, str]) -> None: ...

    set = observe = inc


class MemorySink:
    """Counts in this process: for tests of the graph's parts without Ray."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def make(self, spec: Spec) -> Any:
        return _MemoryMetric(spec, self.values)


class _MemoryMetric:
    def __init__(self, spec: Spec, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
        self._spec = spec
        self._values = values

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        self._check(tags)
        if self._spec.kind == "counter" and value <= 0:
            raise ValueError(f"value must be >0, got {value}")  # as Ray does
        key = (self._spec.name, tuple(sorted(tags.items())))
        self._values[key] = self._values.get(key, 0) + value

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        self._check(tags)
        self._values[self._spec.name, tuple(sorted(tags.items()))] = value

    observe = inc

    def _check(self, tags: Mapping[str, str]) -> None:
        if set(tags) != set(self._spec.tags):
            raise ValueError(f"{self._spec.name} has the tags {self._spec.tags}, not {tuple(tags)}")


def table() -> str:
    """The README's table of metrics, in Markdown."""
    rows = [f"| `{spec.exported}` | {spec.kind} | {', '.join(spec.tags)} | {spec.help} |" for spec in METRICS.values()]
    return "\n".join(["| metric | kind | labels | what |", "| --- | --- | --- | --- |", *rows])
