"""The table of metrics against the code: each is recorded somewhere, with exactly its tags, and nothing else is."""

import ast
from pathlib import Path
from typing import Any

import pytest

from serve.metrics import METRICS, MemorySink, Metrics, Recorder

SERVE = Path(__file__).parents[2] / "serve"


def recordings() -> list[tuple[str, frozenset[str] | None]]:
    """(metric, its tags; None where they are handed on as a mapping) of every call on a `metrics` object in `serve/`."""
    found = []
    for path in sorted(SERVE.glob("*.py")):
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
    with pytest.raises(KeyError):
        Metrics(MemorySink()).colours(1)


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

    from serve.access import Access
    from serve.api import create_app

    app = create_app(local_service, Access(local_service.settings.serving), local_service.metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        for body in ({"text": "robots", "k": 3}, {"text": "robots", "k": 3}, {"text": ""}, {"text": "x", "k": 500}):
            await client.post("/v1/search", json=body)
        await client.get("/nothing")
    values = local_service.metrics._sink.values
    outcomes = {tags: value for (name, tags), value in values.items() if name == "matinee_requests"}
    assert outcomes == {
        (("endpoint", "search"), ("outcome", "ok")): 2,
        (("endpoint", "search"), ("outcome", "invalid")): 2,
        (("endpoint", "none"), ("outcome", "not_found")): 1,
    }
    assert values["matinee_results", (("endpoint", "search"),)] == 6
    assert {dict(tags)["stage"] for name, tags in values if name == "matinee_stage_ms"} == {"embed", "retrieve"}
