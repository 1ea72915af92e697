"""What KubeRay's operator and Kubernetes do with the rendered objects: what they write back, whom they evict, and where replicas go."""

import gzip
import json
import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tests.helm.chart import (
    API_SERVER_ARGS,
    CHART,
    ROOT,
    SCHEMAS,
    VALUES,
    Object,
    RenderError,
    application,
    one,
    rendered,
    run,
    template,
    values_args,
)
from tests.helm.test_manifests import DOCS

ALL = [*VALUES, "everything"]


def missing_defaults(value: Any, schema: dict[str, Any], path: str = "", atomic: bool = False) -> Iterator[str]:
    """Where a default of the schema is absent from an atomic list: the API server or the operator would add it, and own the list too."""
    if isinstance(value, list):
        inside = atomic or schema.get("x-kubernetes-list-type", "atomic") == "atomic"
        for i, entry in enumerate(value):
            yield from missing_defaults(entry, schema.get("items", {}), f"{path}[{i}]", inside)
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        if atomic:
            yield from (f"{path}.{key}" for key, part in properties.items() if "default" in part and key not in value)
        for key, part in value.items():
            yield from missing_defaults(part, properties.get(key, {}), f"{path}.{key}", atomic)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    text = gzip.decompress((SCHEMAS / "rayservice_v1.json.gz").read_bytes())
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("values", ALL)
def test_every_default_of_an_atomic_list_is_rendered(values: str, schema: dict[str, Any]) -> None:
    service = one(rendered(values), "RayService")
    assert list(missing_defaults(service, schema)) == []
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        # No default of the schema, but a structure that Go always writes.
        assert group["scaleStrategy"] == {}


def test_the_search_for_defaults_finds_the_ones_that_the_operator_added(schema: dict[str, Any]) -> None:
    service = json.loads(json.dumps(one(rendered("kind"), "RayService")))
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    del group["numOfHosts"], group["priority"], group["template"]["spec"]["containers"][0]["ports"][0]["protocol"]
    assert [path.rsplit(".", 1)[1] for path in missing_defaults(service, schema)] == ["numOfHosts", "priority", "protocol"]


@pytest.mark.parametrize(
    ("given", "written"),
    [("12.5Gi", "12800Mi"), ("1024Gi", "1Ti"), ("12000M", "12G"), ("24Gi", "24Gi"), ("25769803776", "25769803776"), ("26000000000", "26G")],
)
def test_quantities_are_rendered_as_kubernetes_writes_them_back(given: str, written: str) -> None:
    objects = template(given={"workers": {"gpu": {"memory": given}}, "models": {"storage": {"size": given}}})
    group = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == written
    [models] = [volume for volume in group["template"]["spec"]["volumes"] if volume["name"] == "models"]
    assert models["emptyDir"]["sizeLimit"] == written


@pytest.mark.parametrize(("given", "written"), [("0.5", "500m"), ("1000m", "1"), ("2", "2"), ("250m", "250m"), ("1.5", "1500m")])
def test_cpus_are_rendered_as_kubernetes_writes_them_back(given: str, written: str) -> None:
    cluster = one(template(given={"head": {"cpu": given}}), "RayService")["spec"]["rayClusterConfig"]
    [container] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"] == written


def groups(objects: list[Object] | tuple[Object, ...]) -> dict[str, Object]:
    return {group["groupName"]: group for group in one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def replicas_of(entry: Object) -> tuple[int, int]:
    """Least and most replicas of a deployment."""
    scaling = entry.get("autoscaling_config")
    return (scaling["min_replicas"], scaling["max_replicas"]) if scaling else (entry["num_replicas"], entry["num_replicas"])


def deployments_of(objects: Any, group: Object) -> list[Object]:
    offered = json.loads(json.loads(group["rayStartParams"]["resources"]))
    return [entry for entry in application(objects)["deployments"] if set(entry["ray_actor_options"]["resources"]) <= set(offered)]


@pytest.mark.parametrize("values", ALL)
def test_one_ready_worker_may_always_be_evicted(values: str) -> None:
    """A RayCluster has no scale subresource, so `maxUnavailable` allows nothing; a worker without a replica is never Ready."""
    objects = rendered(values)
    budgets = {
        e["metadata"]["name"]: e["spec"] for e in objects if e["kind"] == "PodDisruptionBudget" and "qdrant" not in e["metadata"]["name"]
    }
    for name, group in groups(objects).items():
        spread = [
            ceil(replicas_of(e)[0] / e["max_replicas_per_node"]) for e in deployments_of(objects, group) if "max_replicas_per_node" in e
        ]
        surely_ready = min(group["minReplicas"], max([1, *spread]))
        if surely_ready == 1:
            assert f"matinee-{name}" not in budgets
            continue
        budget = budgets[f"matinee-{name}"]
        assert "maxUnavailable" not in budget
        assert budget["minAvailable"] == surely_ready - 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_no_pod_of_the_ha_values_holds_all_replicas_of_a_kind() -> None:
    objects = rendered("ha")
    for entry in application(objects)["deployments"]:
        assert entry["max_replicas_per_node"] < replicas_of(entry)[0], entry["name"]


@pytest.mark.parametrize("values", VALUES)
def test_replicas_ask_for_memory_and_a_pod_keeps_some_for_ray(values: str) -> None:
    objects = rendered(values)
    for group in groups(objects).values():
        [container] = group["template"]["spec"]["containers"]
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
        room = int(group["rayStartParams"]["memory"])
        assert 0.84 * limit < room < 0.86 * limit
        entries = deployments_of(objects, group)
        assert entries
        assert all(0 < entry["ray_actor_options"]["memory"] <= room for entry in entries)


def test_the_ingest_job_knows_its_revision_and_the_newest_one() -> None:
    """A hook of installs and upgrades, which a rollback does not run: the Job that it starts again sees a newer revision."""
    objects = rendered("kind")
    newest = one(objects, "ConfigMap", "matinee-revision")
    assert newest["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = one(objects, "Job")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["HELM_REVISION"]["value"] == newest["data"]["newest"] == "1"
    reference = env["HELM_NEWEST_REVISION"]["valueFrom"]["configMapKeyRef"]
    assert (reference["name"], reference["key"], reference["optional"]) == ("matinee-revision", "newest", True)


@pytest.mark.parametrize("values", VALUES)
def test_the_documented_values_are_accepted_on_every_values_file(values: str, tmp_path: Path) -> None:
    """Those of the first install, with the change of the upgrade and the sync beside them; and the ingest that one flag starts."""
    install = (ROOT / "k8s" / "runbooks" / "first-install.md").read_text(encoding="utf-8")
    [mine] = re.findall(r"^ {8}# values-mine\.yaml\n((?: {8}.+\n)+)", install, re.MULTILINE)
    [sync] = re.findall(
        r"^# in values-mine\.yaml\n(sync:\n(?:.+\n)+)```", (ROOT / "docs" / "sync.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    [change] = re.findall(
        r"^ +helm upgrade .*such as settings: (.+)$", (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    given = yaml.safe_load(dedent(mine).replace('"..."', f'"{"0" * 64}"') + sync)
    given["settings"] |= yaml.safe_load(change)
    if values == "ha":
        given |= yaml.safe_load(re.findall(r"With `values-ha\.yaml`, add `(.+?)`", install)[0])
    file = tmp_path / "values-mine.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    args = ["template", "matinee", str(CHART), "--is-upgrade", *values_args(values), "-f", str(file)]
    for major in (3, 4):
        assert "matinee-ingest-1" not in run(*args, major=major)
        objects = [entry for entry in yaml.safe_load_all(run(*args, "--set", "ingest.enabled=true", major=major)) if entry]
        [job] = [entry for entry in objects if entry["metadata"]["name"] == "matinee-ingest-1"]
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert container["args"][:3] == ["/data/films.csv", "--kind", "film"]
        assert any(entry["metadata"]["name"] == "matinee-sync" for entry in objects)


def test_no_document_keeps_the_values_of_the_revision_before() -> None:
    """`--reuse-values` keeps `ingest.enabled=true`: an upgrade of anything would ingest again."""
    for path in DOCS:
        assert not re.search(r"helm upgrade[^\n]*--reuse-values", path.read_text(encoding="utf-8")), path


def test_documents_name_the_revision_to_roll_back_to() -> None:
    """Without one Helm goes to the revision before, which may be one that failed."""
    for path in DOCS:
        assert not re.search(r"helm rollback matinee(?! REVISION)", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("major", [3, 4])
def test_set_takes_decimals(major: int) -> None:
    """Helm makes text of them. A value out of bounds is refused like a number."""
    args = ["template", "matinee", str(CHART), "--show-only", "templates/rayservice.yaml", *API_SERVER_ARGS]
    given = {"settings.index.deployment.num_cpus": 0.25, "settings.tracing.sample_ratio": 0.5}
    texts = [
        run(*args, *(part for path, value in given.items() for part in (flag, f"{path}={value}")), major=major)
        for flag in ("--set", "--set-json")
    ]
    # The application reads both.
    assert texts[0].replace('sample_ratio: "0.5"', "sample_ratio: 0.5") == texts[1]
    assert "num_cpus: 0.25" in texts[0]
    with pytest.raises(RenderError, match="sample_ratio"):
        run(*args, "--set", "settings.tracing.sample_ratio=1.5", major=major)
