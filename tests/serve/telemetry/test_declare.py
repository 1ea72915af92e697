"""How metrics are declared: a recording has the tags of its metric."""

from typing import Any

import pytest

from serve.telemetry.declare import CurrentLabels, Recorder, specs
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink

METRICS = specs(Metrics)


@pytest.mark.parametrize("key", METRICS)
def test_a_recording_with_other_tags_is_refused(key: str) -> None:
    record = getattr(Metrics(MemorySink()), key)
    record(1, **dict.fromkeys(METRICS[key].tags, "x"))
    with pytest.raises(ValueError, match="has the tags"):
        record(1, colour="red")


def test_a_metric_that_is_not_in_the_table() -> None:
    with pytest.raises(AttributeError):
        Metrics(MemorySink()).colours(1)  # type: ignore[attr-defined]


def test_a_metric_is_made_once() -> None:
    class Counting(MemorySink):
        made: list[str] = []  # noqa: RUF012

        def make(self, spec: Any) -> Any:
            self.made.append(spec.name)
            return super().make(spec)

    metrics = Metrics(Counting())
    for _ in range(3):
        metrics.refused()
    assert Counting.made == ["matinee_refused"]
    assert isinstance(metrics.refused, Recorder)


def test_a_counter_takes_nothing_as_nothing() -> None:
    """A model that writes no token is no fault; Ray's counters would raise."""
    sink = MemorySink()
    metrics = Metrics(sink)
    metrics.generated_tokens(0)
    assert sink.values == {}
    metrics.generated_tokens(3)
    assert list(sink.values.values()) == [3]


def test_what_was_current_before_is_zero() -> None:
    sink = MemorySink()
    current = CurrentLabels(Metrics(sink).model_info)
    for model in ("one", "two"):
        current.show(part="p", model=model, precision="fp32", fingerprint="f")
    shown = {dict(labels)["model"]: value for (_, labels), value in sink.values.items()}
    current.clear()
    current.clear()
    assert shown == {"one": 0, "two": 1}
    assert set(sink.values.values()) == {0}
