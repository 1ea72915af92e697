"""The table of metrics against the code: each is recorded somewhere, with exactly its tags, and nothing else is."""

import ast
from pathlib import Path
from typing import Any

import pytest

from serve.telemetry.declare import CurrentLabels, specs
from serve.telemetry.metrics import Metrics

METRICS = specs(Metrics)

SERVE = Path(__file__).parents[3] / "serve"


def recordings() -> list[tuple[str, frozenset[str] | None]]:
    """(metric, its tags; None where they are handed on) of every call on a `metrics` object in `serve/`, and of every `CurrentLabels`."""
    found = []
    # The probe is no replica, and has metrics of its own.
    for path in sorted(path for path in SERVE.rglob("*.py") if "probe" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_metrics(node.func.value):
                names = [keyword.arg for keyword in node.keywords]
                found.append((node.func.attr, None if None in names else frozenset(name for name in names if name)))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == CurrentLabels.__name__:
                found += [(gauge.attr, None) for gauge in node.args if isinstance(gauge, ast.Attribute) and _is_metrics(gauge.value)]
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


def test_the_tokens_that_the_embedder_read_are_counted(local_graph: Any) -> None:
    embedder = local_graph.embedder_replica().slot.model
    before = embedder.tokens_read
    embedder.encode(["one two three", "four"])
    assert embedder.tokens_read - before == (3 + 2) + (1 + 2), "the words, and the two special tokens of each text"
