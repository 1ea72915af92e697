"""What the probe exports: the figures of the last round, and counts over all."""

from prometheus_client import generate_latest

from serve.probe.metrics import ProbeExporter
from serve.probe.round import Quality, RoundReport
from serve.telemetry.metrics import PROBE_METRICS


def exported(metrics: ProbeExporter) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_a_figure_that_the_last_round_did_not_make_is_not_exported() -> None:
    metrics = ProbeExporter()
    whole = RoundReport(
        catalogue="films",
        qualities=(Quality("mine", "dense", 3, 0.5, 0.25),),
        queries={"mine": 3},
        unknown={"mine": 1},
        ann_recall={True: 0.75},
    )
    metrics.show(whole)
    metrics.observe("search", 0.2)
    metrics.count("timeout")
    values = exported(metrics)
    assert values['matinee_probe_recall_at_10{mode="dense",set="mine"}'] == 0.5
    assert values['matinee_probe_ndcg_at_10{mode="dense",set="mine"}'] == 0.25
    assert values['matinee_probe_ann_recall_at_10{filtered="true"}'] == 0.75
    assert values['matinee_probe_queries{set="mine"}'] == 3
    assert values['matinee_probe_unknown_items{set="mine"}'] == 1
    assert values['matinee_probe_failures_total{reason="timeout"}'] == 1
    assert values['matinee_probe_request_seconds_bucket{endpoint="search",le="0.25"}'] == 1
    succeeded = values["matinee_probe_last_success_timestamp_seconds"]
    metrics.show(RoundReport(trouble=("the server is gone",)))
    after = exported(metrics)
    assert not any("recall" in name or "queries" in name for name in after)
    assert after["matinee_probe_rounds_total"] == 2
    assert after["matinee_probe_last_success_timestamp_seconds"] == succeeded


def test_without_a_query_set_a_metric_says_so() -> None:
    metrics = ProbeExporter()
    metrics.show(RoundReport(catalogue="films"))
    assert exported(metrics)['matinee_probe_queries{set="none"}'] == 0


def test_the_declared_metrics_are_those_of_the_registry() -> None:
    families = {family.name: family for family in ProbeExporter().registry.collect()}
    assert {spec.name for spec in PROBE_METRICS.values()} == families.keys()
    assert {spec.name: spec.kind for spec in PROBE_METRICS.values()} == {name: family.type for name, family in families.items()}
