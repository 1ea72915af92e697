"""Where metrics go: to Ray, again and again, or nowhere."""

import pytest

from serve.telemetry.declare import specs
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink, RepeatedGauge

METRICS = specs(Metrics)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_gauge_says_its_values_again(forgets: bool) -> None:
    class Gauge:
        said: list[tuple[float, dict[str, str]]] = []  # noqa: RUF012

        def set(self, value: float, tags: dict[str, str]) -> None:
            self.said.append((value, tags))

    gauge = RepeatedGauge(Gauge(), forgets=forgets)
    gauge.set(1, {"version": "a"})
    gauge.set(0, {"version": "a"})
    gauge.set(1, {"version": "b"})
    assert Gauge.said == [(1, {"version": "a"}), (0, {"version": "a"}), (1, {"version": "b"})]
    Gauge.said.clear()
    gauge.repeat()
    assert Gauge.said == ([] if forgets else [(0, {"version": "a"})]) + [(1, {"version": "b"})]


def test_switched_off_nothing_is_recorded() -> None:
    metrics = Metrics(NullSink())
    for key, spec in METRICS.items():
        getattr(metrics, key)(1, **dict.fromkeys(spec.tags, "x"))
