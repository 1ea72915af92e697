"""The proof: under load, every panel and every alert of ours finds series in a Prometheus that scrapes as the chart says, and a search that
got worse raises its alert and clears it again."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from observability import pictures
from observability.files import BOARDS
from observability.objectives import SELECTOR
from observability.queries import panels
from observability.rules import alerts
from serve.telemetry.declare import specs
from serve.telemetry.metrics import PROBE_METRICS, Metrics
from tests.observability.faults import FAULTS, MODEL_SWAP, Fault
from tests.observability.live import LOST_COLUMN, RANDOM_VECTORS, Stack, stack
from tests.observability.programs import needs
from tests.waiting import until

METRICS = specs(Metrics)

pytestmark = [
    needs("prometheus"),
]

# What has no series, by the beginning of its name, and why: on this machine, and without Ray.
ABSENT = {
    "ray_node_gpus_utilization": "there is no GPU",
    "ray_matinee_gpu_memory_bytes": "there is no GPU",
    "matinee_sync_": "no sync runs here; tests/train/syncing has its metrics",
}
ABSENT_IN_ONE_PROCESS = {
    "ray_serve_": "Ray Serve counts its deployments",
    "ray_node_": "Ray measures its nodes",
    "ray_matinee_model_swap": "only a Serve config changes a model in place",
    "ray_matinee_clock_skew": "its parts have one clock",
}
ON_RAY = pytest.param("ray", marks=pytest.mark.full)
RATE_INTERVAL = "20s"
"""What Grafana would take at this pace of scraping, about: a run is over in two minutes."""
SCRAPED_S = 1.0
"""Prometheus knows nothing new before: to ask it more often only takes time from what is asked about."""
NAME = re.compile(r"\b(?:ray|matinee_probe|matinee_sync)_\w+")


@pytest.fixture(scope="module", params=["process", ON_RAY])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, local_graph: Any) -> Iterator[Stack]:
    films, embedder = local_graph.demo_films(), local_graph.embedder_replica().slot.model
    needed = [how for how in (LOST_COLUMN, RANDOM_VECTORS) if any(f"-{how}]" in item.name for item in request.session.items)]
    with stack(request.param, tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("home"), films, embedder, needed) as running:
        yield running


def absent(live: Stack, expression: str) -> list[str]:
    """The metrics of an expression that can't have series here."""
    reasons = ABSENT | (ABSENT_IN_ONE_PROCESS if live.placement == "process" else {})
    return [name for name in NAME.findall(expression) if name.startswith(tuple(reasons))]


def happened(live: Stack, expression: str) -> str:
    """What a panel counts, without the zero that it shows before the first; the same where there is no such zero."""
    counted, zero, _ = expression.partition(" or 0 * ")
    while zero and counted.count("(") > counted.count(")"):
        counted = counted.removeprefix("(")
    return expression if absent(live, counted) else counted


def eventually(live: Stack, expressions: dict[str, str]) -> None:
    """Each has series, by its name.

    Those of refusals are asked last, while more is sent than is admitted: in that time no round of the probe succeeds.
    """
    refused = {name: expression for name, expression in expressions.items() if "refused" in expression}
    _wait(live, {name: expression for name, expression in expressions.items() if name not in refused})
    if refused:
        with live.crowds():
            _wait(live, refused)


def _wait(live: Stack, expressions: dict[str, str]) -> None:
    missing = dict(expressions)

    def all_found() -> bool:
        for name in [name for name, expression in missing.items() if live.series(expression)]:
            del missing[name]
        return not missing

    until(all_found, lambda: f"all have series, without: {missing}", pause_s=SCRAPED_S)


def test_the_pod_monitors_find_and_label_everything(live: Stack) -> None:
    health = lambda: {t["labels"]["job"]: t["health"] for t in live.prometheus.targets()}  # noqa: E731
    until(lambda: set(health().values()) == {"up"}, lambda: f"both are scraped: {health()}", pause_s=SCRAPED_S)
    eventually(live, {"requests": 'ray_matinee_requests_total{endpoint="search"}', "probe": "matinee_probe_rounds_total"})
    for name in ('ray_matinee_requests_total{endpoint="search"}', "matinee_probe_rounds_total"):
        for series in live.prometheus.instant(name):
            assert (series.labels["namespace"], series.labels["matinee_release"]) == ("ns", "matinee")
            assert series.labels["pod"].startswith("matinee-")
            # Prometheus renames a label of ours only where the target has one of that name.
            assert not [label for label in series.labels if label.startswith(("exported_", "otel_", "Session"))]
    assert live.prometheus.instant("ray_grpc_server_req_new_total") == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.happens.__name__)
def test_a_fault_is_counted_and_passes(live: Stack, fault: Fault) -> None:
    _happens(live, fault)


@pytest.mark.parametrize("live", [ON_RAY], indirect=True)
def test_a_model_that_can_not_be_swapped_is_counted(live: Stack) -> None:
    _happens(live, MODEL_SWAP)


def _happens(live: Stack, fault: Fault) -> None:
    with fault.happens(live):
        eventually(live, {fault.metric: fault.metric})
        if fault.alert:
            until(lambda: live.firing(fault.alert), f"{fault.alert} fires", pause_s=SCRAPED_S)


@pytest.mark.parametrize("uid", [board.UID for board in BOARDS])
def test_every_panel_shows_something(live: Stack, uid: str) -> None:
    asked = {(p, q.legend): q.expression for p in panels(uid, "1m") for q in p.queries}
    asked = {place: expression for place, expression in asked.items() if " or 0 * " in expression or not absent(live, expression)}
    eventually(live, {f"{panel.title}: {legend}": expression for (panel, legend), expression in asked.items()})
    eventually(live, {f"{panel.title}: {legend}": happened(live, expression) for (panel, legend), expression in asked.items()})
    # These show the moment, so they have to be there together. A missed scrape or a round of the probe that was refused empties some of
    # them until the next.
    at_once = {f"{p.title}: {legend}": expression for (p, legend), expression in asked.items() if p.kind != "timeseries"}
    empty = lambda: [name for name, expression in at_once.items() if not live.prometheus.instant(expression)]  # noqa: E731
    until(lambda: not empty(), lambda: f"all have series at one moment, without: {empty()}", pause_s=SCRAPED_S)


def test_every_alert_looks_at_series(live: Stack) -> None:
    """Without its comparison, or each side of an `unless`, an alert's expression has values also while all is well."""
    asked = {}
    for alert in alerts():
        [group] = [r["expr"] for g in rules(live) for r in g["rules"] if (r.get("alert"), window(r)) == (alert.name, alert.window)]
        compared = re.sub(r" (>|<|>=|<=|==) ", r" \1 bool ", group)
        sides = compared.split(" unless ") if " bool " not in compared else [compared]
        asked |= {f"{alert.name} {alert.window} {n}": side for n, side in enumerate(sides) if not absent(live, side)}
    assert len(asked) >= len(alerts()) - (6 if live.placement == "process" else 1)
    eventually(live, asked)


def rules(live: Stack) -> list[dict[str, Any]]:
    [found] = [o["spec"]["groups"] for o in live.objects if o["kind"] == "PrometheusRule"]
    return list(found)


def window(rule: dict[str, Any]) -> str:
    return str(rule["labels"].get("window", "")) if "alert" in rule else ""


def test_every_metric_is_exported_or_excused(live: Stack) -> None:
    asked = [q.expression for board in BOARDS for p in panels(board.UID) for q in p.queries]
    asked += [alert.expr.replace(SELECTOR, "") for alert in alerts()]
    names = {name for expression in asked for name in NAME.findall(expression)}
    ours = {spec.exported for spec in METRICS.values()} | {spec.exported for spec in PROBE_METRICS.values()}
    for name in names:
        if name.startswith(("ray_matinee_", "matinee_probe_")):
            assert name in ours or re.sub(r"_(bucket|sum|count)$", "", name) in ours, name
    eventually(live, {name: name for name in names if not absent(live, name)})


@pytest.mark.parametrize(
    ("broken", "modes"),
    [
        pytest.param(LOST_COLUMN, {"dense", "sparse", "hybrid"}, id=LOST_COLUMN, marks=pytest.mark.full),
        pytest.param(RANDOM_VECTORS, {"dense", "hybrid"}, id=RANDOM_VECTORS),
    ],
)
def test_a_search_that_got_worse_raises_the_alert_and_clears_it(live: Stack, broken: str, modes: set[str]) -> None:
    eventually(live, {"recall": "matinee:recall:usual"})
    firing = lambda: {alert["labels"]["mode"] for alert in live.firing("MatineeRecallDrop")}  # noqa: E731
    assert not firing()
    with live.gone_wrong(broken):
        until(lambda: firing() == modes, lambda: f"the alert fires for {modes}: {firing()}", pause_s=SCRAPED_S)
        for alert in live.firing("MatineeRecallDrop"):
            assert re.search(r"fell by \d", alert["annotations"]["description"]), alert
    until(lambda: not firing(), "the alert clears", pause_s=SCRAPED_S)


def test_what_alerts_say_is_rendered(live: Stack) -> None:
    eventually(live, {"alerts": "ALERTS"})
    for alert in live.prometheus.alerts():
        text = " ".join(alert["annotations"].values())
        assert "<error" not in text, alert
        assert "<no value>" not in text, alert
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/runbooks/{Path(alert['annotations']['runbook']).name}"


@pytest.mark.parametrize("board", [BOARDS[0], *(pytest.param(board, marks=pytest.mark.full) for board in BOARDS[1:])], ids=lambda b: b.UID)
def test_its_picture_can_be_drawn(live: Stack, board: Any, tmp_path: Path) -> None:
    """Last, so that it shows the whole run. `PICTURES=docs` keeps them: those of docs/observability.md."""
    path = Path(os.environ.get("PICTURES", tmp_path)) / pictures.file_name(board.UID)
    pictures.draw(board.UID, board.TITLE, live.prometheus, max(60, time.time() - live.since), path, RATE_INTERVAL)
    assert path.stat().st_size > 20_000
