"""Where a process's metrics go: to Ray, or nowhere."""

import threading
import time
from collections.abc import Mapping
from typing import Protocol

from serve.telemetry.declare import RecordValue, Spec

REPEAT_S = 5.0


class RaySink:
    """`ray.serve.metrics`: the values carry the deployment and replica that recorded them."""

    def __init__(self) -> None:
        self._gauges: list[RepeatedGauge] = []

    def make(self, spec: Spec) -> RecordValue:
        from ray.serve import metrics as ray_metrics

        if spec.kind == "counter":
            count: RecordValue = ray_metrics.Counter(spec.name, description=spec.help, tag_keys=spec.tags).inc
            return count
        if spec.kind == "gauge":
            if not self._gauges:
                threading.Thread(target=self._repeat, name="gauges", daemon=True).start()
            gauge = ray_metrics.Gauge(spec.name, description=spec.help, tag_keys=spec.tags)
            self._gauges.append(RepeatedGauge(gauge, forgets=spec.name.endswith("_info")))
            return self._gauges[-1].set
        observe: RecordValue = ray_metrics.Histogram(
            spec.name, description=spec.help, boundaries=list(spec.buckets), tag_keys=spec.tags
        ).observe
        return observe

    def _repeat(self) -> None:
        while True:
            time.sleep(REPEAT_S)
            for gauge in list(self._gauges):
                gauge.repeat()


class Gauge(Protocol):
    """A gauge of Ray's."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...


class RepeatedGauge:
    """A gauge that says its values again and again: Ray stops exporting one that was not set within two report intervals (20 s).

    With `forgets`, a 0 is set only once. Otherwise each value that a replica once had would stay a series for ever.
    """

    def __init__(self, gauge: Gauge, *, forgets: bool = False) -> None:
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

    def make(self, spec: Spec) -> RecordValue:
        return lambda value, tags: None
