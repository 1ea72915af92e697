"""What the probe exports: the last round's figures, and counts over all rounds. Its own registry, since the probe is no Serve replica.

A figure that the last round could not make is not exported at all: an old one would look like a true one. Does not measure.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serve.probe.round import Report

NO_SET = "none"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class Spec:
    """A metric as it is exported."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


METRICS = (
    Spec("matinee_probe_recall_at_10", "gauge", "Part of the labelled items among the first ten, mean over queries", ("set", "mode")),
    Spec("matinee_probe_ndcg_at_10", "gauge", "NDCG of the first ten against the labels, mean over queries", ("set", "mode")),
    Spec("matinee_probe_ann_recall_at_10", "gauge", "Part of the exact first ten that the approximate index finds", ("filtered",)),
    Spec("matinee_probe_queries", "gauge", "Labelled queries of a round; set none and 0 where there is no query set", ("set",)),
    Spec("matinee_probe_labelled_items", "gauge", "Labelled items of a set", ("set",)),
    Spec("matinee_probe_unknown_items", "gauge", "Labelled items that are not in the index, and are left out", ("set",)),
    Spec("matinee_probe_up", "gauge", "1: the server told its state at the start of the last round; 0: it did not"),
    Spec("matinee_probe_index_age_seconds", "gauge", "Time since the current index version was made, s"),
    Spec("matinee_probe_last_success_timestamp_seconds", "gauge", "When the last round ended that made all its figures"),
    Spec("matinee_probe_request_seconds", "histogram", "Time of a request as the probe sees it, failed ones included, s", ("endpoint",)),
    Spec("matinee_probe_failures_total", "counter", "Requests that failed, by the error's code, or timeout, unreachable", ("reason",)),
    Spec("matinee_probe_rounds_total", "counter", "Rounds, failed ones included"),
)

Samples = Mapping[tuple[str, ...], float]


def table() -> str:
    """The metrics as the README lists them."""
    rows = [f"| `{spec.name}` | {spec.kind} | {', '.join(spec.labels)} | {spec.help} |" for spec in METRICS]
    return "\n".join(["| metric | kind | labels | what |", "| --- | --- | --- | --- |", *rows])


class ProbeMetrics(Collector):
    """The metrics of one probe, in one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._report = Report()
        self._succeeded_at: float | None = None
        spec = {spec.name: spec for spec in METRICS}
        request, failures, rounds = (spec[f"matinee_probe_{name}"] for name in ("request_seconds", "failures_total", "rounds_total"))
        self._requests = Histogram(request.name, request.help, request.labels, buckets=_SECONDS, registry=self.registry)
        self._failures = Counter(failures.name, failures.help, failures.labels, registry=self.registry)
        self._rounds = Counter(rounds.name, rounds.help, rounds.labels, registry=self.registry)
        self.registry.register(self)

    def observe(self, endpoint: str, seconds: float) -> None:
        self._requests.labels(endpoint).observe(seconds)

    def count(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def show(self, report: Report) -> None:
        """Export this round's figures in place of the last one's."""
        self._rounds.inc()
        self._report = report
        if not report.trouble:
            self._succeeded_at = time.time()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        values = self._values()
        for spec in METRICS:
            if spec.kind == "gauge":
                family = GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
                for labels, value in values[spec.name].items():
                    family.add_metric(labels, value)
                yield family

    def _values(self) -> dict[str, Samples]:
        report, succeeded_at = self._report, self._succeeded_at
        queries = report.queries or ({NO_SET: 0} if report.catalogue else {})
        return {
            "matinee_probe_recall_at_10": {(found.set, found.mode): found.recall for found in report.qualities},
            "matinee_probe_ndcg_at_10": {(found.set, found.mode): found.ndcg for found in report.qualities},
            "matinee_probe_ann_recall_at_10": {(str(filtered).lower(),): recall for filtered, recall in report.ann_recall.items()},
            "matinee_probe_queries": {(name,): count for name, count in queries.items()},
            "matinee_probe_labelled_items": {(name,): count for name, count in report.labelled.items()},
            "matinee_probe_up": {} if report == Report() else {(): float(report.up)},
            "matinee_probe_unknown_items": {(name,): count for name, count in report.unknown.items()},
            "matinee_probe_index_age_seconds": {} if report.created is None else {(): time.time() - report.created.timestamp()},
            "matinee_probe_last_success_timestamp_seconds": {} if succeeded_at is None else {(): succeeded_at},
        }

    def means(self) -> Iterator[tuple[str, int, float]]:
        """Each endpoint with its requests and their mean time, ms."""
        samples = {(s.name.rpartition("_")[2], s.labels.get("endpoint", "")): s.value for f in self._requests.collect() for s in f.samples}
        for kind, endpoint in samples:
            if kind == "count" and samples[kind, endpoint]:
                count = samples[kind, endpoint]
                yield endpoint, int(count), 1000 * samples["sum", endpoint] / count
