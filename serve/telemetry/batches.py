"""What a part records of each batch: how long its messages had waited, and the spans of those that are traced."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matinee.settings.serving import TracingSettings
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing, Waited


class BatchTelemetry:
    """`with telemetry(batch) as results: results += ...` around the work of one part."""

    def __init__(self, part: str, settings: TracingSettings, metrics: Metrics) -> None:
        self._part = part
        self._metrics = metrics
        self._tracing = Tracing(settings, part)

    @contextmanager
    def __call__(self, batch: Sequence[Waited]) -> Iterator[list[object]]:
        start = time.monotonic()
        for queued in batch:
            self._metrics.queue_wait((start - queued.since) * 1000, part=self._part)
        results: list[object] = []
        try:
            yield results
        finally:
            self._tracing.messages(self._part, batch, results, start)

    def close(self) -> None:
        self._tracing.close()
