"""The sync of the chart: a Deployment that repeats and is scraped, or a CronJob; what it runs, reaches and knows."""

from typing import Any

import pytest

from matinee.settings.load import load_settings
from tests.helm.chart import Object, one, pods, template, validate
from train.jobs import command
from train.sync import SyncOptions

QUERY: dict[str, Any] = {"enabled": True, "query": "SELECT * FROM films", "database": {"existingSecret": "shop"}}
FOLLOWED = QUERY | {"cursor": "updated_at", "deleted": "gone", "compareEverySeconds": 3_600_000}
BUCKET: dict[str, Any] = {"enabled": True, "source": "s3://bucket/films", "schedule": "0 3 * * *"}


def container(entry: Object) -> dict[str, Any]:
    [(_, pod)] = pods(entry)
    [found] = pod["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(("sync", "kind"), [(FOLLOWED, "Deployment"), (BUCKET, "CronJob")])
def test_the_job_takes_what_the_chart_gives_it(sync: dict[str, Any], kind: str) -> None:
    found = one(template(given={"sync": sync}), kind, "matinee-sync")
    validate(found)
    made = container(found)
    options = command.parse(SyncOptions, made["args"], "train.sync")
    assert (options.source or options.query) == (sync.get("source") or sync["query"])
    assert (options.cursor, options.deleted) == (sync.get("cursor"), sync.get("deleted"))
    assert options.compare_every == sync.get("compareEverySeconds", 86_400)
    assert (options.max_deleted, options.max_rejected, options.delete) == (0.1, 0.01, True)
    assert (options.every, options.metrics_port, options.metrics_host) == (
        (600, 9106, "0.0.0.0") if kind == "Deployment" else (None, None, "127.0.0.1")
    )
    env = {entry["name"]: entry.get("value", "secret") for entry in made["env"]}
    assert env["MATINEE_URL"] == "http://matinee-serve-svc:8000"
    assert env["MATINEE_HOME"].startswith("/tmp/"), "the root is read-only"
    assert ("MATINEE_DATABASE" in env) == ("query" in sync)
    load_settings(environ={name: value for name, value in env.items() if name != "MATINEE_CONFIG"})


def test_two_never_run_at_once() -> None:
    assert one(template(given={"sync": QUERY}), "Deployment", "matinee-sync")["spec"]["strategy"] == {"type": "Recreate"}
    assert one(template(given={"sync": BUCKET}), "CronJob", "matinee-sync")["spec"]["concurrencyPolicy"] == "Forbid"


def test_only_what_has_metrics_is_scraped() -> None:
    for sync, scraped in ((QUERY, True), (BUCKET, False)):
        objects = template(given={"sync": sync, "metrics": {"podMonitor": True}})
        monitors = [entry["metadata"]["name"] for entry in objects if entry["kind"] == "PodMonitor"]
        assert ("matinee-sync" in monitors) == scraped
        assert ("ingress" in one(objects, "NetworkPolicy", "matinee-sync")["spec"]) == scraped


def test_it_reaches_the_api_and_its_source_alone() -> None:
    database = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    for sync, more in ((QUERY | {"egress": database}, [{"to": database}]), (BUCKET, [443])):
        [api, *others] = one(template(given={"sync": sync}), "NetworkPolicy", "matinee-sync")["spec"]["egress"]
        assert api["ports"] == [{"protocol": "TCP", "port": 8000}]
        assert [other["ports"][0]["port"] if "ports" in other else other for other in others] == more
