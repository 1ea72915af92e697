"""What a server exports after a little of everything: each metric by its exported name, with its tags."""

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serve.telemetry.declare import specs
from serve.telemetry.metrics import Metrics
from tests.waiting import HANG_S, until

METRICS = specs(Metrics)

# Not produced by a server that is well and not overloaded; `tests/serve/telemetry/test_metrics.py` records each of them.
UNSEEN = {
    "degraded": "the enhancer answered in time",
    "refused": "the gateway was never full",
    "events_dropped": "the event log had room",
    "index_errors": "the index answered",
    "gpu_memory": "there may be no GPU",
    "enhancer_server_failures": "the model is in the process",
    "violations": "the descriptions kept to the metadata, or not: the model's affair",
    "model_swap_failures": "no model was updated",
}

# Some of the values that the requests below must leave behind. Parts of a stack report at their own pace: each is awaited.
VALUES = {
    "requests": ("endpoint", {"search", "describe", "recommend"}),
    "model_info": ("part", {"embedder", "enhancer"}),
    "queue_wait": ("part", {"embedder", "enhancer", "retriever"}),
    "events": ("kind", {"impression", "liked"}),
    "stage": ("stage", {"embed", "retrieve", "enhance"}),
}


def scrape(url: str) -> dict[str, list[dict[str, str]]]:
    """Key of each of our metrics -> the labels of its samples; a histogram's are those of its count."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(httpx.get(url, timeout=HANG_S).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    # Histograms are exported as their buckets, count and sum.
    names = {key: spec.exported + ("_count" if spec.kind == "histogram" else "") for key, spec in METRICS.items()}
    return {key: found[name] for key, name in names.items() if name in found}


def test_every_metric_is_exported_with_its_tags(server: Any) -> None:
    server.post("/v1/search", {"text": "a film for the metrics"})
    server.post("/v1/describe", {"id": "the-matrix-1999"})
    server.post("/v1/recommend", {"likes": ["Inception"]})
    answer = server.post("/v1/search", {"text": "dreams", "k": 1})
    liked = {"token": answer["feedback_token"], "liked": [answer["items"][0]["id"]]}
    server.client.post(f"{server.url}/v1/feedback", json=liked).raise_for_status()
    # One process has one clock.
    unseen = UNSEEN.keys() | ({"clock_skew_s"} if server.get("/v1/info")["placement"] == "process" else set())
    expected = METRICS.keys() - unseen

    def missing() -> set[str]:
        found = scrape(server.metrics_url)
        values = {
            f"{key} of {tag} {value}"
            for key, (tag, wanted) in VALUES.items()
            for value in wanted - {labels[tag] for labels in found.get(key, ())}
        }
        return values | (expected - found.keys())

    until(lambda: not missing(), lambda: f"all metrics are exported; without: {missing()}")
    found = scrape(server.metrics_url)
    for key in expected:
        for labels in found[key]:
            assert set(METRICS[key].tags) <= set(labels), (key, labels)
            assert all(labels[tag] for tag in METRICS[key].tags), (key, labels)
    for key in ("model_info", "queue_wait"):
        tag, all_values = VALUES[key]
        assert {labels[tag] for labels in found[key]} == all_values
