"""The table of metrics against the code: each is recorded somewhere, with exactly its tags, and nothing else is."""

import ast
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import FingerprintError, IndexUnavailableError, NotFoundError
from matinee.index.types import Manifest
from serve.telemetry.declare import Recorder, specs
from serve.telemetry.index_health import IndexHealth
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink, RepeatedGauge
from tests.memory_sink import MemorySink

METRICS = specs(Metrics)

SERVE = Path(__file__).parents[3] / "serve"


def recordings() -> list[tuple[str, frozenset[str] | None]]:
    """(metric, its tags; None where they are handed on as a mapping) of every call on a `metrics` object in `serve/`."""
    found = []
    # The probe is no replica, and has metrics of its own.
    for path in sorted(path for path in SERVE.rglob("*.py") if "probe" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_metrics(node.func.value):
                names = [keyword.arg for keyword in node.keywords]
                found.append((node.func.attr, None if None in names else frozenset(name for name in names if name)))
    return found


def _is_metrics(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") == "metrics"


def test_every_metric_is_recorded_somewhere_and_no_other() -> None:
    assert {name for name, _ in recordings()} == set(METRICS)


@pytest.mark.parametrize(("name", "tags"), [(name, tags) for name, tags in recordings() if tags is not None])
def test_each_recording_has_exactly_the_tags_of_its_metric(name: str, tags: frozenset[str]) -> None:
    assert tags == frozenset(METRICS[name].tags)


def test_names_are_ours_unique_and_fit_prometheus() -> None:
    names = [spec.name for spec in METRICS.values()]
    assert len(set(names)) == len(names)
    for spec in METRICS.values():
        assert spec.name.startswith("matinee_")
        assert spec.name.replace("_", "").isalpha()
        assert not spec.name.endswith(("_total", "_count", "_sum", "_bucket", "_info_total"))
        assert spec.exported == f"ray_{spec.name}" + ("_total" if spec.kind == "counter" else "")
        assert "route" not in spec.tags, "Ray's own tag key"
        assert spec.help
        assert bool(spec.buckets) == (spec.kind == "histogram")
        assert list(spec.buckets) == sorted(spec.buckets)


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


async def test_what_a_search_and_its_errors_record(local_service: Any) -> None:
    import httpx

    from serve.api.app import create_app
    from serve.api.auth import ApiKeys

    app = create_app(local_service, ApiKeys(local_service.settings.serving))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for body in ({"text": "robots", "k": 3}, {"text": "robots", "k": 3}, {"text": ""}, {"text": "x", "k": 500}):
            await client.post("/v1/search", json=body)
        await client.get("/nothing")
    values = local_service.metrics.sink.values
    outcomes = {tags: value for (name, tags), value in values.items() if name == "matinee_requests"}
    assert outcomes == {
        (("catalogue", "demo"), ("endpoint", "search"), ("outcome", "ok")): 2,
        (("catalogue", "demo"), ("endpoint", "search"), ("outcome", "invalid")): 2,
        (("catalogue", "none"), ("endpoint", "none"), ("outcome", "not_found")): 1,
    }
    assert values["matinee_results", (("endpoint", "search"),)] == 6
    assert {dict(tags)["stage"] for name, tags in values if name == "matinee_stage_ms"} == {"embed", "retrieve"}
    assert values["matinee_in_flight_requests", ()] == 0
    assert ("matinee_queue_wait_ms", (("part", "retriever"),)) in values
    assert values["matinee_index_up", (("catalogue", "demo"),)] == 1
    assert values["matinee_index_built_timestamp_seconds", (("catalogue", "demo"),)] > 1.7e9


def test_the_index_is_up_while_it_answers() -> None:
    sink = MemorySink()
    health = IndexHealth(Metrics(sink), "demo")

    def up() -> float:
        return sink.values["matinee_index_up", (("catalogue", "demo"),)]

    down = IndexUnavailableError("no answer")
    health.record_check(None)
    assert up() == 1
    health.record_results([down, down])
    assert up() == 0
    health.record_results([NotFoundError("no such item")])
    assert up() == 0, "an error does not say that it is back"
    health.record_results([object()])
    assert up() == 1
    health.record_check(FingerprintError("another encoder"))
    assert up() == 1, "the version before still answers"
    health.record_check(down)
    assert up() == 0
    health.record_check(OSError("a bug"))
    reasons = {dict(tags)["reason"]: value for (name, tags), value in sink.values.items() if name == "matinee_index_errors"}
    assert reasons == {"index_unavailable": 3, "fingerprint_mismatch": 1, "internal": 1}


def test_a_version_says_when_it_was_made() -> None:
    sink = MemorySink()
    health = IndexHealth(Metrics(sink), "demo")
    manifest = Manifest(version="v1", catalogue="c", fingerprint="f" * 64, recipe="raw", dimensions={}, count=3)
    health.record_version(manifest.model_copy(update={"created": "2026-01-01T00:00:00+00:00"}))
    assert sink.values["matinee_index_built_timestamp_seconds", (("catalogue", "demo"),)] == 1767225600
    health.record_version(manifest.model_copy(update={"version": "v2"}))
    assert sink.values["matinee_index_built_timestamp_seconds", (("catalogue", "demo"),)] == 1767225600
    series = {dict(tags)["version"]: value for (name, tags), value in sink.values.items() if name == "matinee_index_info"}
    assert series == {"v1": 0, "v2": 1}


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


def test_the_tokens_that_the_embedder_read_are_counted(local_graph: Any) -> None:
    embedder = local_graph.embedder_replica().slot.model
    before = embedder.tokens_read
    embedder.encode(["one two three", "four"])
    assert embedder.tokens_read - before == (3 + 2) + (1 + 2), "the words, and the two special tokens of each text"


def test_a_counter_takes_nothing_as_nothing() -> None:
    """A model that writes no token is no fault; Ray's counters would raise."""
    sink = MemorySink()
    metrics = Metrics(sink)
    metrics.generated_tokens(0)
    assert sink.values == {}
    metrics.generated_tokens(3)
    assert list(sink.values.values()) == [3]
