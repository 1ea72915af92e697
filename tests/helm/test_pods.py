"""What every pod must be: restricted, with resources, running commands that exist, on ports that something listens on."""

import contextlib
import importlib.metadata
import io
import runpy
import shlex
import warnings
from functools import cache
from typing import Any

import pytest
import yaml
from ray._private import ray_constants

from tests.helm.chart import CHART, VALUES, Object, application, containers, one, pods, rendered, template
from tests.helm.ray_serve import constants as serve_constants

ALL = [*VALUES, "everything"]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
RAY = ("ray-head", "ray-worker")
"""KubeRay writes the commands of these."""
KEYS = {"Retriever": "MATINEE_INDEX__API_KEY", "Enhancer": "MATINEE_ENHANCER__API_KEY"}
"""The deployments that have a key to another service."""
DRAIN, WINDOW = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"


def every_pod(values: str) -> list[tuple[str, Object]]:
    return [(f"{entry['kind']} {name}", pod) for entry in rendered(values) for name, pod in pods(entry)]


def restricted(pod: Object) -> list[str]:
    """What the Pod Security standard "restricted" refuses in a pod, as Kubernetes 1.30 and later check it."""
    spec = pod["spec"]
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if not set(v) - {"name"} <= VOLUMES or set(v) == {"name"}]
    pod_context = spec.get("securityContext", {})
    for container in containers(pod):
        context = container.get("securityContext", {})
        name = container["name"]
        checks = {
            "privileged": not context.get("privileged"),
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": context.get("capabilities", {}).get("drop") == ["ALL"] and not context["capabilities"].get("add"),
            "runAsNonRoot": context.get("runAsNonRoot", pod_context.get("runAsNonRoot")) is True,
            "runAsUser": context.get("runAsUser", pod_context.get("runAsUser")) != 0,
            "seccompProfile": context.get("seccompProfile", pod_context.get("seccompProfile", {})).get("type") == "RuntimeDefault",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        }
        found += [f"{name}: {check}" for check, passed in checks.items() if not passed]
    return found


@pytest.mark.parametrize("values", ALL)
def test_restricted(values: str) -> None:
    for name, pod in every_pod(values):
        assert restricted(pod) == [], name


def test_the_checker_finds_what_is_not_restricted() -> None:
    [pod] = [pod for name, pod in every_pod("kind") if name.startswith("Job")]
    loose = {
        "spec": pod["spec"] | {"hostNetwork": True, "containers": [{"name": "x"}], "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}
    }
    assert len(restricted(loose)) == 5


def test_the_autoscaler_beside_the_head_is_restricted_too() -> None:
    options = one(rendered("default"), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    sidecar = {"name": "autoscaler", "securityContext": options["securityContext"]}
    assert restricted({"spec": {"containers": [sidecar], "securityContext": {"runAsUser": 1000}}}) == []
    assert options["resources"]["limits"]


@pytest.mark.parametrize("values", ALL)
def test_resources_are_set_everywhere(values: str) -> None:
    for name, pod in every_pod(values):
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) >= {"cpu", "memory"}, f"{name}: {container['name']}"


@pytest.mark.parametrize("values", ALL)
def test_mounts_have_volumes_and_tokens_are_not_mounted(values: str) -> None:
    for name, pod in every_pod(values):
        spec = pod["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        if name.startswith("StatefulSet"):
            volumes |= {"storage", "snapshots"}
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted <= volumes, name
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is False or name == "RayService head", name


@pytest.mark.parametrize("values", ALL)
def test_no_pod_can_fill_the_disk_of_its_node(values: str) -> None:
    for name, pod in every_pod(values):
        for volume in pod["spec"].get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), f"{name}: {volume['name']}"


def test_head_and_workers_have_one_environment() -> None:
    for values in ALL:
        rays = [pod["spec"]["containers"][0]["env"] for name, pod in every_pod(values) if name.startswith("RayService")]
        envs = [[entry for entry in env if entry["name"] not in (DRAIN, *KEYS.values())] for env in rays]
        assert all(env == envs[0] for env in envs)
        names = [entry["name"] for entry in envs[0]]
        assert len(names) == len(set(names))
        assert {"RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_LOG_TO_STDERR", "RAY_GRAFANA_HOST"} <= set(names)


@pytest.mark.parametrize("values", VALUES)
def test_only_the_workers_of_a_part_have_its_key(values: str) -> None:
    """Its replicas can't run elsewhere: their custom resource is offered by these workers alone."""
    key = {"apiKey": {"existingSecret": "key"}}
    objects = template(values, given={"enhancerServer": key, "qdrant": key})
    cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
    sent = {entry["name"]: entry["ray_actor_options"]["resources"] for entry in application(objects)["deployments"]}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        offered = yaml.safe_load(yaml.safe_load(group["rayStartParams"].get("resources", '"{}"')))
        [container] = group["template"]["spec"]["containers"]
        expected = {key for name, key in KEYS.items() if name in sent and sent[name].keys() <= offered.keys()}
        assert {entry["name"] for entry in container["env"]} & set(KEYS.values()) == expected


def test_the_fast_modes_follow_the_settings() -> None:
    for values, expected in (("default", "1"), ("kind", "0")):
        env = {e["name"]: e.get("value") for e in dict(every_pod(values))["RayService head"]["spec"]["containers"][0]["env"]}
        assert (env["RAY_SERVE_THROUGHPUT_OPTIMIZED"], env["RAY_SERVE_ENABLE_HA_PROXY"], env["RAY_SERVE_LOG_TO_STDERR"]) == (
            expected,
            expected,
            "1",
        )


def test_no_user_work_on_the_head_and_a_drain_for_the_slowest_request() -> None:
    for values in ALL:
        cluster = one(rendered(values), "RayService")["spec"]["rayClusterConfig"]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["authOptions"]["mode"] == "token"
        for group in cluster["workerGroupSpecs"]:
            spec = group["template"]["spec"]
            [container] = spec["containers"]
            [drain] = [int(e["value"]) for e in container["env"] if e["name"] == DRAIN]
            assert 30 <= drain < spec["terminationGracePeriodSeconds"] - int(container["lifecycle"]["preStop"]["exec"]["command"][1])


def test_ray_knows_the_variables_that_the_drain_is_set_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DRAIN, "7")
    monkeypatch.setenv(WINDOW, "8")
    assert runpy.run_path(ray_constants.__file__)[DRAIN] == 7
    assert runpy.run_path(serve_constants.__file__)[WINDOW] == 8


def test_the_ingest_job_goes_where_a_volume_of_one_node_is() -> None:
    spec = one(template("single-gpu", given={"ingest": {"enabled": True}}), "Job")["spec"]["template"]["spec"]
    [term] = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {"matinee/release": "matinee", "matinee/group": "gpu"}
    assert spec["tolerations"]
    assert "affinity" not in one(rendered("kind"), "Job")["spec"]["template"]["spec"]


def test_gateways_that_go_leave_a_whole_deadline_of_their_drain() -> None:
    for values in ALL:
        settings = yaml.safe_load(one(rendered(values), "ConfigMap", "matinee-settings")["data"]["settings.yaml"])["serving"]
        env = {e["name"]: e.get("value") for e in dict(every_pod(values))["RayService head"]["spec"]["containers"][0]["env"]}
        window = float(env[WINDOW])
        assert 0 < window <= settings["drain_s"] - settings["deadline_s"]


@cache
def help_of(*command: str) -> str:
    """What `python -m MODULE ... --help`, or that of our `matinee`, says; in this process, because starting one imports for seconds."""
    said, program = io.StringIO(), command[0]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), warnings.catch_warnings():
        # Of modules that run although they were imported before.
        warnings.simplefilter("ignore")
        # Wide enough that no flag is cut.
        patch.setenv("COLUMNS", "300")
        patch.setattr("typer.rich_utils.MAX_WIDTH", 300)
        module, words = (command[2], command[3:]) if program == "python" else (program, command[1:])
        patch.setattr("sys.argv", [module, *words, "--help"])
        try:
            if program == "matinee":
                [entry] = importlib.metadata.entry_points(group="console_scripts", name="matinee")
                entry.load()()
            elif module.endswith(".py"):
                runpy.run_path(module, run_name="__main__")
            else:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except ImportError as error:
            raise AssertionError(f"{shlex.join(command)}: {error}") from error
        except SystemExit as ended:
            if ended.code:
                raise AssertionError(f"{shlex.join(command)} --help: {ended.code}") from ended
    return said.getvalue()


def check_command(words: list[str]) -> None:
    """Raises where a command or one of its flags does not exist in our CLI."""
    match words:
        case ["python", "-m", "serve", "check", *rest]:
            program = ["python", "-m", "serve", "check"]
        case ["python", "-m", module, *rest] if module.startswith("train.") or module == "serve.probe":
            program = ["python", "-m", module]
        case ["matinee", command, *rest]:
            program = ["matinee", command]
        case ["python", "/scripts/snapshots.py", command, *rest]:
            program = ["python", "-m", str(CHART / "files" / "snapshots.py"), command]
        case _:
            raise AssertionError(f"{words} is no command of ours")
    text = help_of(*program)
    for flag in (word for word in rest if word.startswith("-")):
        assert flag in text.replace(",", " ").split(), f"{shlex.join(program)} has no flag {flag}"


def command_of(container: dict[str, Any]) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


@pytest.mark.parametrize("values", ALL)
def test_every_command_exists(values: str) -> None:
    for _, pod in every_pod(values):
        for container in containers(pod):
            if container["name"] in RAY:
                assert command_of(container) == []
            elif container["name"] == "qdrant":
                assert command_of(container)[:2] == ["sh", "-c"]
            else:
                check_command(command_of(container))


def test_the_command_checker_refuses_what_does_not_exist() -> None:
    with pytest.raises(AssertionError, match="no flag --nonsense"):
        check_command(["python", "-m", "train.ingest", "--nonsense"])
    with pytest.raises(AssertionError):
        check_command(["python", "-m", "train.nonsense"])


@pytest.mark.parametrize("values", ALL)
def test_ports_lead_to_something_that_listens(values: str) -> None:
    objects = rendered(values)
    by_labels = [(pod["metadata"]["labels"], pod) for entry in objects for _, pod in pods(entry)]
    for service in (entry for entry in objects if entry["kind"] == "Service"):
        [pod] = [pod for labels, pod in by_labels if service["spec"]["selector"].items() <= labels.items()]
        open_ports = {port["name"]: port["containerPort"] for c in containers(pod) for port in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            assert open_ports[port["targetPort"]] == port["port"]
    listening = {port["containerPort"] for name, pod in every_pod(values) for c in containers(pod) for port in c.get("ports", [])}
    for policy in (entry for entry in objects if entry["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule.get("ports", [])} <= listening, policy["metadata"]["name"]


@pytest.mark.parametrize("values", ALL)
def test_selectors_find_pods(values: str) -> None:
    objects = rendered(values)
    labels = [pod["metadata"]["labels"] for entry in objects for _, pod in pods(entry)]
    for entry in objects:
        if entry["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            assert any(entry["spec"]["selector"]["matchLabels"].items() <= found.items() for found in labels), entry["metadata"]["name"]
        if entry["kind"] == "Ingress":
            [path] = entry["spec"]["rules"][0]["http"]["paths"]
            service = path["backend"]["service"]
            assert service == {"name": f"{one(objects, 'RayService')['metadata']['name']}-serve-svc", "port": {"number": 8000}}


@pytest.mark.parametrize("values", ALL)
def test_everything_is_denied_by_default_and_no_ray_port_is_open_to_all(values: str) -> None:
    policies = {entry["metadata"]["name"]: entry["spec"] for entry in rendered(values) if entry["kind"] == "NetworkPolicy"}
    default = policies["matinee-default"]
    assert default["podSelector"]["matchLabels"] == {"matinee/release": "matinee"}
    assert set(default["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in default
    labels = [pod["metadata"]["labels"] for entry in rendered(values) for _, pod in pods(entry)]
    assert all(found["matinee/release"] == "matinee" for found in labels)
    for rule in policies["matinee-ray"]["ingress"]:
        ports = {port["port"] for port in rule.get("ports", [])}
        if ports & {8265, 6379, 10001} or not ports:
            [peer] = rule["from"]
            selected = peer.get("podSelector") or peer["namespaceSelector"]
            assert selected["matchLabels"] in ({"matinee/release": "matinee"}, {"kubernetes.io/metadata.name": "kuberay-system"})
