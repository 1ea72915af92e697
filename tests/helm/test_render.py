"""Helm 4 and Helm 3 accept and render the chart alike, and every object is what its kind's schema says."""

import hashlib
from pathlib import Path

import kubernetes_validate
import pytest

from tests.helm.chart import API_SERVER_ARGS, CHART, VALUES, Object, one, rendered, run, template, validate, values_args


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("values", VALUES)
def test_lint(values: str, major: int) -> None:
    assert "0 chart(s) failed" in run("lint", "--strict", str(CHART), *values_args(values), *API_SERVER_ARGS, major=major)


def _comparable(objects: tuple[Object, ...] | list[Object]) -> list[Object]:
    # A key is made anew where there is no cluster to ask for the one it has.
    return sorted((entry for entry in objects if entry["kind"] != "Secret"), key=lambda e: (e["kind"], e["metadata"]["name"]))


@pytest.mark.parametrize("values", VALUES)
def test_both_helms_render_the_same(values: str) -> None:
    assert _comparable(template(values, major=3)) == _comparable(rendered(values))


@pytest.mark.parametrize("values", [*VALUES, "everything"])
def test_every_object_is_valid(values: str) -> None:
    for entry in rendered(values):
        validate(entry)


def test_an_unknown_field_or_kind_is_not_valid() -> None:
    service = dict(one(rendered("default"), "Service", "matinee-qdrant"))
    with pytest.raises(Exception, match="nonsense"):
        validate(service | {"spec": {**service["spec"], "nonsense": 1}})
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(service | {"kind": "Nothing"})


def test_two_releases_share_nothing() -> None:
    first, second = template(release="alpha"), template(release="beta")
    names = [{(e["kind"], e["metadata"]["name"]) for e in objects} for objects in (first, second)]
    assert not names[0] & names[1]
    for objects, own, other in ((first, "alpha", "beta"), (second, "beta", "alpha")):
        for entry in objects:
            assert other not in str(entry), entry["metadata"]["name"]
            assert entry["metadata"]["labels"]["matinee/release"] == f"{own}-matinee"


def test_names_are_unique() -> None:
    for values in (*VALUES, "everything"):
        names = [(e["apiVersion"], e["kind"], e["metadata"]["name"]) for e in rendered(values)]
        assert len(names) == len(set(names))


def test_everything_covers_every_kind() -> None:
    kinds = {entry["kind"] for entry in rendered("everything")}
    core = "ConfigMap PersistentVolumeClaim Pod Secret Service ServiceAccount Deployment StatefulSet Job CronJob"
    wanted = f"{core} HTTPRoute Ingress NetworkPolicy PodDisruptionBudget PodMonitor PrometheusRule RayService"
    assert kinds == set(wanted.split())


def test_packages_are_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        run("package", str(CHART), "--destination", str(tmp_path / name))
        [package] = (tmp_path / name).glob("*.tgz")
        digests.add(hashlib.sha256(package.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_notes_name_the_next_steps() -> None:
    # Without a cluster Helm renders them only into an install that it does not send.
    notes = run("install", "matinee", str(CHART), "--dry-run=client", "--namespace", "ns", *API_SERVER_ARGS).partition("NOTES:")[2]
    for step in ("kubectl -n ns wait rayservice/matinee", "ingest.enabled=true", "port-forward svc/matinee-serve-svc", "helm test matinee"):
        assert step in notes
