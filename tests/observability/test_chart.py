"""What the chart ships: the committed dashboards, the rules with the release's own objectives, and clear words where values can't work."""

import json
from typing import Any

import pytest
import yaml

from matinee.settings.load import load_settings
from observability.files import BOARDS
from observability.objectives import SELECTOR, defaults, fill
from observability.queries import FOLDER, read
from observability.rules import groups
from serve.telemetry.declare import specs
from serve.telemetry.metrics import Metrics
from tests.helm.chart import ROOT, RenderError, application, one, template
from tests.observability.live import CHART_VALUES

METRICS = specs(Metrics)


def given(**alerts: Any) -> dict[str, Any]:
    return {**CHART_VALUES, "alerts": {"enabled": True, **alerts}}


def test_the_rules_are_those_of_this_release() -> None:
    rendered = one(template(given=given(), release="films"), "PrometheusRule")["spec"]
    text = fill(yaml.safe_dump({"groups": groups()}, width=10_000), defaults())
    assert rendered == yaml.safe_load(text.replace(SELECTOR, 'namespace="ns",matinee_release="films-matinee"'))
    assert "<" not in str(rendered).replace(" < ", "").replace(" <= ", "")


def test_objectives_are_values() -> None:
    recall = {"drop": 0.25, "minimum": 0.6, "ann": 0.8, "window": "7m", "baseline": "5h", "for": "3m"}
    alerts = given(
        interval="17s",
        runbooks="https://wiki.example/runbooks",
        availability=0.995,
        latency={"objective": 0.9, "thresholdMs": 2000},
        recall=recall,
        degraded=0.2,
        refused=0.03,
        queueWaitMs=123,
        indexMaxAgeHours=1_000_000,
        probeSilenceMinutes=44,
    )
    text = yaml.safe_dump(one(template(given=alerts), "PrometheusRule")["spec"], width=10_000)
    for part in (
        *("interval: 17s", "https://wiki.example/runbooks/recall-drop.md", "(1 - 0.995)", 'le="2000.0"', "(1 - 0.9)"),
        *("> 0.25", "< 0.6", "< 0.8", "[7m]", "[5h]", "for: 3m", "> 0.2", "> 0.03", "> 123", "3600 * 1e+06", "60 * 44", "for: 44m"),
    ):
        assert part in text, part


def test_an_alert_names_its_runbook_and_links_it_where_there_is_a_url() -> None:
    for runbooks in ("", "https://wiki.example/runbooks"):
        alerts = [rule for group in groups_of(runbooks) for rule in group["rules"] if "alert" in rule]
        for annotations in (alert["annotations"] for alert in alerts):
            folder, _, name = annotations["runbook"].rpartition("/")
            assert (ROOT / folder / name).is_file()
            assert annotations.get("runbook_url") == (f"{runbooks}/{name}" if runbooks else None)


def groups_of(runbooks: str) -> list[dict[str, Any]]:
    return list(one(template(given=given(runbooks=runbooks)), "PrometheusRule")["spec"]["groups"])


REFUSED = {
    "a bound that no bucket has": (given(latency={"thresholdMs": 300}), "thresholdMs 300 is no bound"),
    "alerts without metrics": (given() | {"metrics": {"podMonitor": False}}, "metrics.podMonitor is false"),
    "alerts of what is not recorded": (given() | {"settings": {"serving": {"metrics": False}}}, "settings.serving.metrics is false"),
    "a probe too seldom for its alert": (
        given() | {"probe": {"enabled": True}, "settings": {"probe": {"interval_s": 1800}}},
        "would fire between any two rounds",
    ),
    "a probe that may not ask": (
        given() | {"probe": {"enabled": True}, "keys": {"existingSecret": "keys"}},
        "name it in probe.existingSecret",
    ),
    "two slashes": (given(runbooks="https://wiki.example/"), "ends in a slash"),
    "runbooks that no browser finds": (given(runbooks="k8s/runbooks"), "is no URL"),
    "a runbook URL with a query": (given(runbooks="https://wiki.example/?page=a"), "is no URL"),
    "an objective without a budget": (given(availability=1), "availability"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_work_is_refused(name: str) -> None:
    values, says = REFUSED[name]
    with pytest.raises(RenderError, match=says):
        template(given=values)


def test_the_latency_bounds_are_those_of_the_histogram() -> None:
    for bound in (50, 100, 200, 500, 1000, 2000, 5000, 10_000):
        assert bound in METRICS["latency"].buckets
    for bound in (50, 10_000):
        template(given=given(latency={"thresholdMs": bound}))


def test_the_sidecar_finds_the_committed_dashboards() -> None:
    shipped = one(template(given=given()), "ConfigMap", "matinee-dashboards")
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shipped["metadata"]["annotations"] == {"grafana_folder": "Matinee"}
    assert set(shipped["data"]) == {f"{board.UID}.json" for board in BOARDS}
    for name, text in shipped["data"].items():
        assert text == (FOLDER / name).read_text(encoding="utf-8")


def test_the_probe_asks_this_release_and_is_scraped() -> None:
    objects = template(given=given() | {"probe": {"enabled": True, "existingSecret": "probe-key"}}, release="films")
    [container] = one(objects, "Deployment", "films-matinee-probe")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value", "secret") for entry in container["env"]}
    file = yaml.safe_load(one(objects, "ConfigMap", "films-matinee-settings")["data"]["settings.yaml"])
    probe = load_settings(file, environ={name: value for name, value in env.items() if name.startswith("MATINEE_PROBE")}).probe
    assert probe.url == "http://films-matinee-serve-svc:8000"
    assert probe.key is not None
    assert (probe.metrics_host, [{"name": "metrics", "containerPort": probe.metrics_port}]) == ("0.0.0.0", container["ports"])
    # The graph's replicas don't restart when the probe's settings change.
    assert "probe" not in application(objects)["args"]


@pytest.mark.parametrize("uid", [board.UID for board in BOARDS])
def test_a_dashboard_can_be_imported_anywhere(uid: str) -> None:
    """No data source of one Grafana is named, every variable is used, and the ids are Grafana's to give."""
    board = read(uid)
    text = json.dumps(board)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "release", "application", "deployment"}
    assert (board["uid"], board.get("id")) == (uid, None)
    for name in variables:
        assert f"${name}" in text or f"${{{name}}}" in text, name
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["description"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_without_a_query_set_the_panels_say_so() -> None:
    found = [p for b in BOARDS for p in read(b.UID)["panels"] if any("recall_at_10{" in t["expr"] for t in p.get("targets", []))]
    labelled = [p for p in found if "ann_recall" not in p["targets"][0]["expr"]]
    assert len(labelled) == 3
    for panel in labelled:
        assert panel["fieldConfig"]["defaults"]["noValue"].startswith("no query set")
