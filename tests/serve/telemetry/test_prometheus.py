"""Metrics without Ray have the names and labels that Ray exports, whichever parts of the process record them."""

from prometheus_client import generate_latest

from serve.telemetry.declare import specs
from serve.telemetry.metrics import Metrics
from serve.telemetry.prometheus import PrometheusSink, SharedRegistry

METRICS = specs(Metrics)


def test_parts_of_a_process_share_metrics_under_labels_of_their_own() -> None:
    registry = SharedRegistry()
    gateway, embedder = (Metrics(PrometheusSink(registry, part)) for part in ("gateway", "embedder"))
    gateway.requests(2, endpoint="search", outcome="ok", catalogue="demo")
    gateway.queue_wait(3.0, part="embedder")
    embedder.queue_wait(7.0, part="embedder")
    embedder.model_info(1, part="embedder", model="m", precision="fp32", fingerprint="f")
    embedder.encoded_tokens(0)
    text = generate_latest(registry.registry).decode()
    common = 'application="matinee",deployment="Gateway"'
    labels = 'application="matinee",catalogue="demo",deployment="Gateway",endpoint="search",outcome="ok",replica="process"'
    assert f"ray_matinee_requests_total{{{labels}}} 2.0" in text
    waits = "ray_matinee_queue_wait_ms_sum"
    assert f'{waits}{{{common},part="embedder",replica="process"}} 3.0' in text
    assert f'{waits}{{application="matinee",deployment="Embedder",part="embedder",replica="process"}} 7.0' in text
    assert 'ray_matinee_model_info{application="matinee",deployment="Embedder",fingerprint="f"' in text
    assert text.count("# TYPE ray_matinee_queue_wait_ms histogram") == 1


def test_every_metric_can_be_made() -> None:
    registry = SharedRegistry()
    sink = PrometheusSink(registry, "gateway")
    for spec in METRICS.values():
        sink.make(spec)(1.0, dict.fromkeys(spec.tags, "x"))
    exported = {sample.name for family in registry.registry.collect() for sample in family.samples}
    for spec in METRICS.values():
        assert spec.exported + ("_count" if spec.kind == "histogram" else "") in exported
