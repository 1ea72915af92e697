"""Models without a replica while nobody uses them: the GPU group goes down to no pod, and what always runs stays on CPUs."""

from typing import Any

import pytest

from matinee.settings.load import load_settings
from tests.helm.chart import Object, RenderError, application, containers, one, pods, serve_config, template, validate
from tests.helm.ray_serve import ServeDeploySchema, build
from tests.helm.test_pods import restricted
from tests.helm.test_refused import merged

IDLE: dict[str, Any] = {
    "settings": {
        "enhancer": {"deployment": {"min_replicas": 0, "max_replicas": 1, "num_gpus": 0.5}},
        "embedder": {"deployment": {"min_replicas": 1, "max_replicas": 2, "num_gpus": 0}},
    },
    "workers": {"gpu": {"minReplicas": 0, "maxReplicas": 2}, "cpu": {"models": True, "maxReplicas": 6}},
}
FALLBACK: dict[str, Any] = merged(
    IDLE,
    settings={"embedder": {"cpu_fallback": True, "deployment": {"min_replicas": 0, "num_gpus": 0.25}}},
)


def deployments(objects: list[Object]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in application(objects)["deployments"]}


def groups(objects: list[Object]) -> dict[str, Any]:
    return {group["groupName"]: group for group in one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def test_an_enhancer_may_have_no_replica_and_its_group_no_pod_while_the_embedder_runs_on_cpus() -> None:
    objects = template("gpu-on-demand")
    parts, workers = deployments(objects), groups(objects)
    assert (workers["gpu"]["minReplicas"], workers["gpu"]["replicas"], workers["gpu"]["maxReplicas"]) == (0, 0, 1)
    scaling = parts["Enhancer"]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (0, 1)
    assert parts["Enhancer"]["ray_actor_options"]["resources"] == {"matinee_models": 0.001}
    # Not on a GPU pod, which would then never be idle.
    assert parts["Embedder"]["ray_actor_options"]["resources"] == {"matinee_cpu_models": 0.001}
    for name, resource in (("gpu", "matinee_models"), ("cpu", "matinee_cpu_models")):
        assert resource in workers[name]["rayStartParams"]["resources"]
        assert [each["name"] for each in workers[name]["template"]["spec"]["initContainers"]] == ["models"], "the models are there"
    assert "matinee_models" not in workers["cpu"]["rayStartParams"]["resources"]
    # The gateways have to know which part may have no replica.
    settings = load_settings(application(objects)["args"], environ={})
    assert (settings.enhancer.deployment.min_replicas, settings.embedder.deployment.min_replicas) == (0, 1)


def test_other_numbers_of_replicas_restart_nothing() -> None:
    more = merged(IDLE, settings={"embedder": {"deployment": {"min_replicas": 2}}})
    assert application(template(given=more))["args"] == application(template(given=IDLE))["args"]


def test_a_fallback_embedder_runs_beside_the_gateways_with_the_same_model() -> None:
    parts = deployments(template(given=FALLBACK))
    assert parts["Embedder"]["autoscaling_config"]["min_replicas"] == 0
    spare = parts["CpuEmbedder"]
    assert spare["ray_actor_options"]["resources"] == {"matinee_cpu_models": 0.001}
    assert spare["ray_actor_options"]["num_gpus"] == 0
    assert spare["user_config"] == parts["Embedder"]["user_config"]
    settings = load_settings(application(template(given=FALLBACK))["args"], environ={})
    assert settings.embedder.cpu_fallback
    assert settings.embedder.deployment.min_replicas == 0
    assert "CpuEmbedder" not in deployments(template(given=IDLE))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"settings": {"enhancer": {"deployment": {"min_replicas": 1}}}}, "workers.gpu.minReplicas is 0, but settings.enhancer.deployment"),
        ({"workers": {"cpu": {"models": False}}}, "workers.gpu.minReplicas is 0, but settings.embedder.deployment"),
        ({"workers": {"cpu": {"minReplicas": 0}}}, "workers.cpu.minReplicas is 0, but settings"),
        ({"settings": {"embedder": {"cpu_fallback": True}}}, "the embedder runs on CPUs already"),
        ({"autoscaler": {"enabled": False}}, "autoscaler.enabled is false"),
        ({"models": {"storage": {"kind": "pvc", "accessMode": "ReadWriteOnce"}}}, "can be mounted on one node"),
        ({"workers": {"cpu": {"enabled": False}}}, "workers.cpu.models is for a cpu group beside a gpu group"),
    ],
)
def test_what_contradicts_it_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError, match=message):
        template(given=merged(IDLE, **more))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"workers": {"cpu": {"models": False}}}, "set workers.cpu.enabled and workers.cpu.models"),
        ({"settings": {"embedder": {"cpu_deployment": {"num_gpus": 1}}}}, "cpu_deployment.num_gpus is above 0"),
        ({"settings": {"embedder": {"cpu_deployment": {"min_replicas": 40, "max_replicas": 40}}}}, "its replicas need"),
    ],
)
def test_what_contradicts_a_fallback_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError, match=message):
        template(given=merged(FALLBACK, **more))


def test_the_pods_of_both_groups_that_run_models_read_them_from_their_own_volume() -> None:
    for group in groups(template(given=IDLE)).values():
        [worker] = [each for each in containers(group["template"]) if each["name"] == "ray-worker"]
        assert "models" in {mount["name"] for mount in worker["volumeMounts"]}


def test_its_objects_are_valid_and_its_pods_restricted() -> None:
    for entry in template("gpu-on-demand"):
        validate(entry)
        for name, pod in pods(entry):
            assert restricted(pod) == [], name


def test_a_graph_is_built_from_it() -> None:
    ServeDeploySchema.model_validate(serve_config(template("gpu-on-demand")))
    from ray.serve._private.build_app import build_app

    built = {deployment.name for deployment in build_app(build(application(template(given=FALLBACK))["args"]), name="matinee").deployments}
    assert built == {"Embedder", "CpuEmbedder", "Enhancer", "Retriever", "Gateway"}
