"""Metrics of a process without Ray, under the names and labels that Ray exports: dashboards and alerts read both alike."""

import threading
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serve.telemetry.declare import Record, Spec

PREFIX = "ray_"
APPLICATION = "matinee"
LABELS = ("application", "deployment", "replica")


class PrometheusSink:
    """Records into `registry`, with the labels of the part `deployment`."""

    def __init__(self, registry: "SharedRegistry", deployment: str) -> None:
        self._registry = registry
        self._labels = {"application": APPLICATION, "deployment": deployment.capitalize(), "replica": "process"}

    def make(self, spec: Spec) -> Record:
        collector = self._registry.collector(spec)
        known: dict[tuple[str, ...], Any] = {}

        def record(value: float, tags: dict[str, str]) -> None:
            key = tuple(tags.values())
            if (child := known.get(key)) is None:
                child = known[key] = collector.labels(**self._labels, **tags)
            _RECORD[spec.kind](child, value)

        return record


class SharedRegistry:
    """One collector for each metric, whichever parts record it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._collectors: dict[str, Any] = {}

    def collector(self, spec: Spec) -> Any:
        with self._lock:
            if spec.name not in self._collectors:
                labels = (*LABELS, *spec.tags)
                more = {"buckets": spec.buckets} if spec.kind == "histogram" else {}
                self._collectors[spec.name] = _KINDS[spec.kind](PREFIX + spec.name, spec.help, labels, registry=self.registry, **more)
            return self._collectors[spec.name]


_KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_RECORD: dict[str, Any] = {"counter": Counter.inc, "gauge": Gauge.set, "histogram": Histogram.observe}
