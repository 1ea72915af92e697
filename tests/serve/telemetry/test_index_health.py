"""Whether the index answers, as metrics."""

from matinee.errors import FingerprintError, IndexUnavailableError, NotFoundError
from matinee.index.progress import BuildProgress
from matinee.index.types import Manifest
from serve.telemetry.index_health import IndexHealth
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink


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


def test_a_build_that_was_seen_is_exported_until_it_ends() -> None:
    sink = MemorySink()
    health = IndexHealth(Metrics(sink), "demo")
    progress = BuildProgress(version="v1", source="films.csv", started="2026-01-01", items=30, total=100)

    def exported() -> list[float]:
        return [sink.values[name, (("catalogue", "demo"),)] for name in ("matinee_index_build_items", "matinee_index_build_expected_items")]

    health.record_build(None)
    assert exported() == [0, 0]
    health.record_build(progress)
    assert exported() == [30, 100]
    health.record_build(None)
    assert exported() == [0, 0]
