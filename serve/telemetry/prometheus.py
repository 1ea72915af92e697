"""Metrics of a process without Ray, under the names and labels that Ray exports: dashboards and alerts read both alike."""

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serve.telemetry.declare import RecordValue, Spec

PREFIX = "ray_"
APPLICATION = "matinee"
LABELS = ("application", "deployment", "replica")

Collector = Counter | Gauge | Histogram


class PrometheusSink:
    """Records into `registry`, with the labels of the part `deployment`."""

    def __init__(self, registry: "SharedRegistry", deployment: str) -> None:
        self._registry = registry
        self._labels = {"application": APPLICATION, "deployment": deployment.capitalize(), "replica": "process"}

    def make(self, spec: Spec) -> RecordValue:
        collector = self._registry.collector(spec)
        known: dict[tuple[str, ...], Callable[[float], None]] = {}

        def record(value: float, tags: dict[str, str]) -> None:
            key = tuple(tags.values())
            if (recorder := known.get(key)) is None:
                recorder = known[key] = _recorder(collector.labels(**self._labels, **tags))
            recorder(value)

        return record


class SharedRegistry:
    """One collector for each metric, whichever parts record it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._collectors: dict[str, Collector] = {}

    def collector(self, spec: Spec) -> Collector:
        with self._lock:
            if spec.name not in self._collectors:
                self._collectors[spec.name] = self._make(spec)
            return self._collectors[spec.name]

    def _make(self, spec: Spec) -> Collector:
        name, labels = PREFIX + spec.name, (*LABELS, *spec.tags)
        match spec.kind:
            case "counter":
                return Counter(name, spec.help, labels, registry=self.registry)
            case "gauge":
                return Gauge(name, spec.help, labels, registry=self.registry)
            case "histogram":
                return Histogram(name, spec.help, labels, registry=self.registry, buckets=spec.buckets)


def _recorder(child: Collector) -> Callable[[float], None]:
    match child:
        case Counter():
            return child.inc
        case Gauge():
            return child.set
        case Histogram():
            return child.observe
