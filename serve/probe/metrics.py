"""What the probe exports: the last round's figures, and counts over all rounds. Its own registry, since the probe is no Serve replica.

If a round could not measure a figure, that metric is missing until the next round. Does not measure.
"""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serve.probe.round import RoundReport
from serve.telemetry.declare import RecordValue, Spec
from serve.telemetry.metrics import PROBE_METRICS, ProbeMetrics

NO_SET = "none"


class ProbeExporter(Collector):
    """The metrics of one probe, in one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._report = RoundReport()
        self._succeeded_at: float | None = None
        self._gauges: dict[str, GaugeMetricFamily] = {}
        self._requests: Histogram | None = None
        self._metrics = ProbeMetrics(self)
        for key in PROBE_METRICS:
            getattr(self._metrics, key)
        self.registry.register(self)

    def make(self, spec: Spec) -> RecordValue:
        """A metric of this registry; gauges are filled at each scrape."""
        if spec.kind == "counter":
            counter = Counter(spec.name, spec.help, spec.tags, registry=self.registry)
            return lambda value, tags: (counter.labels(**tags) if tags else counter).inc(value)
        if spec.kind == "histogram":
            histogram = self._requests = Histogram(spec.name, spec.help, spec.tags, buckets=spec.buckets, registry=self.registry)
            return lambda value, tags: histogram.labels(**tags).observe(value)
        return lambda value, tags: self._gauges[spec.name].add_metric([tags[tag] for tag in spec.tags], value)

    def observe(self, endpoint: str, seconds: float) -> None:
        self._metrics.request_seconds(seconds, endpoint=endpoint)

    def count(self, reason: str) -> None:
        self._metrics.failures(reason=reason)

    def show(self, report: RoundReport) -> None:
        """Export this round's figures in place of the last one's."""
        self._metrics.rounds()
        self._report = report
        if not report.trouble:
            self._succeeded_at = time.time()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauges = [spec for spec in PROBE_METRICS.values() if spec.kind == "gauge"]
        self._gauges = {spec.name: GaugeMetricFamily(spec.name, spec.help, labels=spec.tags) for spec in gauges}
        self._set_gauges()
        yield from self._gauges.values()

    def _set_gauges(self) -> None:
        report, metrics = self._report, self._metrics
        for quality in report.qualities:
            metrics.recall_at_10(quality.recall, set=quality.set, mode=quality.mode)
            metrics.ndcg_at_10(quality.ndcg, set=quality.set, mode=quality.mode)
        for filtered, recall in report.ann_recall.items():
            metrics.ann_recall_at_10(recall, filtered=str(filtered).lower())
        for name, count in (report.queries or ({NO_SET: 0} if report.catalogue else {})).items():
            metrics.queries(count, set=name)
        for name, count in report.labelled.items():
            metrics.labelled_items(count, set=name)
        for name, count in report.unknown.items():
            metrics.unknown_items(count, set=name)
        if report != RoundReport():
            metrics.up(float(report.up))
        if report.created is not None:
            metrics.index_age_seconds(time.time() - report.created.timestamp())
        if self._succeeded_at is not None:
            metrics.last_success_timestamp_seconds(self._succeeded_at)

    def means(self) -> Iterator[tuple[str, int, float]]:
        """Each endpoint with its requests and their mean time, ms."""
        families = [] if self._requests is None else self._requests.collect()
        samples = {(s.name.rpartition("_")[2], s.labels.get("endpoint", "")): s.value for f in families for s in f.samples}
        for kind, endpoint in samples:
            if kind == "count" and samples[kind, endpoint]:
                count = samples[kind, endpoint]
                yield endpoint, int(count), 1000 * samples["sum", endpoint] / count
