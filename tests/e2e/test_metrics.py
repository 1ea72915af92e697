"""What Ray exports after a little of everything: each metric by its exported name, with its tags."""

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from serve.metrics import METRICS

pytestmark = pytest.mark.slow

# Not produced by a server that is well and not overloaded; `tests/serve/test_metrics.py` records each of them.
UNSEEN = {
    "degraded": "the enhancer answered in time",
    "refused": "the door was never full",
    "events_dropped": "the event log had room",
    "index_errors": "the index answered",
    "gpu_memory": "there may be no GPU",
    "violations": "the descriptions kept to the metadata, or not: the model's affair",
    "model_swap_failures": "no model was updated",
}


def scrape(url: str) -> dict[str, list[dict[str, str]]]:
    """Name of each sample's family, as exported -> the labels of its samples."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(httpx.get(url, timeout=30).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_metric_is_exported_with_its_tags(server: Any, tools: Any) -> None:
    server.post("/v1/search", {"text": "a film for the metrics"})
    server.post("/v1/describe", {"id": "the-matrix-1999"})
    server.post("/v1/recommend", {"likes": ["Inception"]})
    server.client.post(f"{server.url}/v1/feedback", json={"liked": ["inception-2010"]}).raise_for_status()
    expected = {key: spec for key, spec in METRICS.items() if key not in UNSEEN}

    def missing() -> set[str]:
        found = scrape(server.metrics_url)
        # Histograms are exported as their buckets, count and sum.
        return {spec.exported for spec in expected.values() if spec.exported + ("_count" if spec.kind == "histogram" else "") not in found}

    until(lambda: not missing(), lambda: f"all metrics are exported; without: {missing()}", 60)
    found = scrape(server.metrics_url)
    for spec in expected.values():
        for labels in found[spec.exported + ("_count" if spec.kind == "histogram" else "")]:
            assert set(spec.tags) <= set(labels), (spec.exported, labels)
            assert all(labels[tag] for tag in spec.tags), (spec.exported, labels)
    endpoints = {labels["endpoint"] for labels in found[METRICS["requests"].exported]}
    assert {"search", "describe", "recommend"} <= endpoints
    assert {labels["part"] for labels in found[METRICS["model_info"].exported]} == {"embedder", "enhancer"}
    assert {labels["part"] for labels in found[METRICS["queue_wait"].exported + "_count"]} == {"embedder", "enhancer", "retriever"}
    assert {labels["kind"] for labels in found[METRICS["events"].exported]} >= {"impression", "liked"}
    assert {labels["stage"] for labels in found[METRICS["stage"].exported + "_count"]} >= {"embed", "retrieve", "enhance"}
