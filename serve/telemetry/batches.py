"""What a part notes of each batch that it takes up: how long the units had waited, and the spans of those that are traced."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matinee.settings.serving import TracingSettings
from serve.graph.microbatch import Timed
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing


class Handling:
    """`with handling(batch) as results: results += ...` around the work of one part."""

    def __init__(self, part: str, settings: TracingSettings, metrics: Metrics) -> None:
        self._part = part
        self._metrics = metrics
        self._tracing = Tracing(settings, part)

    @contextmanager
    def __call__(self, batch: Sequence[Timed[Any]]) -> Iterator[list[Any]]:
        start = time.time()
        for timed in batch:
            # Clocks of two hosts may differ by more than a short wait.
            self._metrics.queue_wait(max(0.0, start - timed.since) * 1000, part=self._part)
        results: list[Any] = []
        try:
            yield results
        finally:
            self._tracing.units(self._part, batch, results, start)

    def close(self) -> None:
        self._tracing.close()
