"""The plain manifests under k8s/: valid, restricted, with commands that exist; and what the runbooks tell to type exists too."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from matinee.settings.models import EnhancerSettings
from tests.helm.chart import CHART, ROOT, VALUES, Object, application, containers, one, pods, rendered, template, validate
from tests.helm.helm_tools import kustomize
from tests.helm.test_pods import check_command, help_of, restricted

FOLDER = ROOT / "k8s" / "jobs"
VLLM = ROOT / "k8s" / "vllm"
JOBS = sorted(path.parent for path in FOLDER.glob("*/kustomization.yaml") if path.parent.name != "rayjob")
MULTI_GPU = sorted(path.parent for path in (FOLDER / "multi-gpu").glob("*/kustomization.yaml"))
# Without the log of experiments: its commands are those of their day.
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "experiments.md"]
DOCS = [*sorted((ROOT / "k8s").rglob("*.md")), *sorted(ROOT.glob("*.md")), *PAGES, CHART / "README.md"]


def load_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values


def objects(path: Path) -> list[Object]:
    """Those of a file, or of a folder as `kubectl apply -k` builds it."""
    text = path.read_text(encoding="utf-8") if path.is_file() else kustomize(path)
    return [entry for entry in yaml.safe_load_all(text) if entry]


def with_components(folder: Path, job: str, *components: str) -> Object:
    """A job of the manifests with components, as a user's own kustomization makes it."""
    overlay = folder / "overlay"
    overlay.mkdir()
    above = Path(os.path.relpath(FOLDER, overlay))
    files = {"resources": [str(above / job)], "components": [str(above / "components" / name) for name in components]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Kustomization"} | files), encoding="utf-8")
    [made] = objects(overlay)
    validate(made)
    return made


@pytest.mark.parametrize(
    "path", [FOLDER / "base.yaml", *JOBS, *MULTI_GPU, VLLM / "vllm.yaml"], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_objects_are_valid_and_pods_are_restricted(path: Path) -> None:
    for entry in objects(path):
        validate(entry)
        for name, pod in pods(entry):
            assert restricted(pod) == [], name
            assert pod["spec"]["automountServiceAccountToken"] is False
            for container in containers(pod):
                assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
                if path.parent != VLLM:
                    assert container.get("command") is None, "KubeRay writes it"


@pytest.mark.parametrize("path", [*JOBS, *MULTI_GPU], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_job_runs_a_command_of_ours_with_settings_that_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matinee.settings.load import load_settings

    [job] = objects(path)
    check_command(shlex.split(job["spec"]["entrypoint"]))
    [head] = containers(job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"])
    given = {entry["name"]: entry.get("value", "from a Secret") for entry in head["env"]}
    load_settings(environ={name: value for name, value in given.items() if name.startswith("MATINEE_")})
    assert job["metadata"]["name"] == path.stem


def test_a_job_of_several_nodes_has_restricted_workers_of_the_heads_image(tmp_path: Path) -> None:
    found = dict(pods(with_components(tmp_path, "ingest", "workers")))
    head, worker = found["head"], found["worker gpu"]
    assert restricted(worker) == []
    [[in_head], [in_worker]] = containers(head), containers(worker)
    assert in_worker["image"] == in_head["image"]
    assert in_worker["resources"] == in_head["resources"]
    assert worker["spec"]["tolerations"] == head["spec"]["tolerations"]
    # The head's volume is of one node. Models go where the head's settings say.
    assert {mount["mountPath"] for mount in in_worker["volumeMounts"]} == {mount["mountPath"] for mount in in_head["volumeMounts"]}
    assert not any("persistentVolumeClaim" in volume for volume in worker["spec"]["volumes"])


@pytest.mark.parametrize("path", MULTI_GPU, ids=lambda path: path.name)
def test_a_job_on_several_gpus_has_one_for_each_worker_and_files_that_all_pods_share(path: Path) -> None:
    [job] = objects(path)
    cluster = job["spec"]["rayClusterSpec"]
    [group] = cluster["workerGroupSpecs"]
    [[in_head], [in_worker]] = [containers(of["template"]) for of in (cluster["headGroupSpec"], group)]
    words = shlex.split(job["spec"]["entrypoint"])
    asked = int(words[words.index("--workers") + 1])
    assert group["replicas"] * int(in_worker["resources"]["limits"]["nvidia.com/gpu"]) == asked
    assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
    assert "nvidia.com/gpu" not in in_head["resources"]["limits"]
    assert in_worker["image"] == in_head["image"]
    # What the command reads and writes, its checkpoints and the models are the same files for all.
    home = {entry["name"]: entry.get("value", "") for entry in in_head["env"]}
    assert {Path(word).parts[1] for word in [*words, home["MATINEE_HOME"], home["HF_HOME"]] if word.startswith("/")} == {"data"}
    for pod, container in ((cluster["headGroupSpec"]["template"], in_head), (group["template"], in_worker)):
        claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if "emptyDir" not in volume}
        [mounted] = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/data"]
        assert claims[mounted] == {"claimName": "work"}


def test_spot_nodes_get_the_workers_and_not_the_head(tmp_path: Path) -> None:
    job = with_components(tmp_path, "multi-gpu/embedder", "spot")
    found = dict(pods(job))
    [worker, head] = [found[name]["spec"] for name in ("worker gpu", "head")]
    [(label, value)] = worker["nodeSelector"].items()
    assert {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"} in worker["tolerations"]
    assert any(each["key"] == "nvidia.com/gpu" for each in worker["tolerations"])
    assert "nodeSelector" not in head


@pytest.mark.parametrize("job", ["prepare", "multi-gpu/describe"])
def test_a_job_waits_in_a_queue_if_its_component_says_so(tmp_path: Path, job: str) -> None:
    queued, plain = with_components(tmp_path, job, "kueue"), objects(FOLDER / job)[0]
    assert queued["metadata"].pop("labels") == {"kueue.x-k8s.io/queue-name": "train"}
    assert queued["spec"].pop("suspend") is True
    assert queued == plain
    # What Kueue wants of a RayJob.
    assert queued["spec"]["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in queued["spec"]
    assert not queued["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling")


def test_every_job_has_a_manifest() -> None:
    """But for the sheets of ratings, which people fill in, and the sync, which is a Deployment or CronJob of the chart."""
    runnable = {path.stem for path in (ROOT / "train").glob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}
    assert {path.name for path in JOBS} == runnable - {"ratings", "sync"}


def test_a_job_with_a_gpu_asks_for_one_and_runs_on_its_image() -> None:
    for path in JOBS:
        for entry in objects(path):
            for _, pod in pods(entry):
                for container in containers(pod):
                    on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
                    if container["name"] == "ray-head":
                        assert container["image"].endswith("-gpu" if on_gpu else "-cpu"), path.name
                        assert ("tolerations" in pod["spec"]) == on_gpu


def test_the_charts_enhancer_reaches_the_vllm_of_the_manifest_by_its_names() -> None:
    deployment, service, policy = objects(VLLM / "vllm.yaml")
    values = yaml.safe_load((VLLM / "values.yaml").read_text(encoding="utf-8"))
    rendered_objects = template(given=values)
    [entry] = [d for d in application(rendered_objects)["deployments"] if d["name"] == "Enhancer"]
    enhancer = EnhancerSettings.model_validate(entry["user_config"])
    assert enhancer.engine == "openai"
    [_, vllm] = containers(deployment["spec"]["template"])
    args = dict(arg.removeprefix("--").partition("=")[::2] for arg in vllm["args"])
    assert enhancer.model == args["served-model-name"]
    assert args["lora-modules"].partition("=")[0] == enhancer.adapter
    assert enhancer.url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/v1"
    assert int(args["max-model-len"]) >= enhancer.max_input_tokens + enhancer.max_new_tokens
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"]
    # The key comes from one Secret on both sides, and stands in no object.
    env = {entry["name"]: entry.get("valueFrom") for entry in vllm["env"]}
    [worker, *_] = one(rendered_objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    given = {entry["name"]: entry.get("valueFrom") for entry in containers(worker["template"])[-1]["env"]}
    assert given["MATINEE_ENHANCER__API_KEY"] == env["VLLM_API_KEY"]
    # Each side's policy lets the other's pods through.
    out = [peer for rule in one(rendered_objects, "NetworkPolicy", "matinee-ray")["spec"]["egress"] for peer in rule["to"]]
    assert {"podSelector": {"matchLabels": labels}} in out
    [peer] = policy["spec"]["ingress"][0]["from"]
    assert worker["template"]["metadata"]["labels"]["matinee/part"] in peer["podSelector"]["matchExpressions"][0]["values"]


def test_the_ingest_job_reaches_the_releases_qdrant() -> None:
    """Out of its own namespace by its policy, into the release's by the value that the job's first lines name."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "matinee-train"}}}
    policy = one(template(given={"networkPolicy": {"qdrantClients": [peer]}}), "NetworkPolicy", "matinee-qdrant")
    [opened] = [rule for rule in policy["spec"]["ingress"] if peer in rule["from"]]
    assert {"protocol": "TCP", "port": 6333} in opened["ports"]
    [out] = [entry["spec"]["egress"] for entry in objects(FOLDER / "base.yaml") if entry["kind"] == "NetworkPolicy"]
    [to_qdrant] = [rule for rule in out if {"protocol": "TCP", "port": 6333} in rule.get("ports", [])]
    assert to_qdrant["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "matinee"}}}]
    first = (FOLDER / "ingest" / "kustomization.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    assert json.dumps([peer]) in first.replace("\n# ", " ")
    serving = load_values()["settings"]["index"]
    [job] = objects(FOLDER / "ingest")
    [head] = containers(job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"])
    env = {entry["name"]: entry.get("value") for entry in head["env"]}
    assert (env["MATINEE_INDEX__SHARDS"], env["MATINEE_INDEX__REPLICATION_FACTOR"]) == (
        str(serving["shards"]),
        str(serving["replication_factor"]),
    )


def commands() -> list[tuple[str, str]]:
    """Every line of our own commands that the documents show, with continuation lines joined."""
    found = []
    for path in DOCS:
        text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
        for match in re.finditer(
            r"(?:^ +(?:kubectl [^\n]*-- (?:env \S+ )?)?|`)((?:python -m (?:serve|train)|matinee )[^`\n]*)", text, re.MULTILINE
        ):
            found.append((path.name, match[1].strip()))
    return found


@pytest.mark.parametrize(("document", "command"), commands())
def test_commands_of_the_documents_exist(document: str, command: str) -> None:
    words = [word for word in shlex.split(command.partition(" | ")[0].partition(" > ")[0], comments=True) if word != "..."]
    if words[:2] in (["matinee", "ingest"], ["matinee", "sync"]):
        # It hands its flags to the job.
        words = ["python", "-m", f"train.{words[1]}", *words[2:]]
    depth = 3 if words[0] == "python" else 1
    if words[:3] == ["python", "-m", "serve"] or words[:2] in (["matinee", name] for name in ("models", "size", "search", "recommend")):
        depth += 1
    depth = 3 if words[0] == "matinee" and words[1] in ("evalset", "items", "catalogues", "index") else depth
    flags_at = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    program, rest = words[: min(depth, flags_at)], words[min(depth, flags_at) :]
    text = help_of(*program)
    for flag in (word.partition("=")[0] for word in rest if word.startswith("--")):
        assert flag in text.replace(",", " ").split(), f"{document}: {command}: no flag {flag}"


def test_values_files_and_paths_of_the_documents_exist() -> None:
    for path in DOCS:
        for mentioned in re.findall(r"(?:helm|k8s|docs)/[\w./-]+\.(?:yaml|md)", path.read_text(encoding="utf-8")):
            assert (ROOT / mentioned).exists(), f"{path.name} names {mentioned}"


def test_values_that_the_documents_set_exist() -> None:
    known = load_values()
    for path in DOCS:
        for option in re.findall(r"--set(?:-json|-string)? '?([a-zA-Z][\w.]*)=", path.read_text(encoding="utf-8")):
            node = known
            for key in option.split("."):
                assert key in node, f"{path.name}: --set {option}"
                # What stands in place of `settings` has its keys.
                node = known["settings"] if option.startswith("ingest.settings.") and key == "settings" else node[key]


def test_labels_that_the_documents_select_are_on_pods_of_every_values_file() -> None:
    selectors = {found for path in DOCS for found in re.findall(r"-l (matinee/[^\s`]+)", path.read_text(encoding="utf-8"))}
    assert selectors
    for selector in selectors:
        wanted = dict(pair.split("=") for pair in selector.split(","))
        for values in VALUES:
            if wanted.get("matinee/part") == "qdrant" and values == "cpu":
                continue  # it has none
            labels = [pod["metadata"]["labels"] for entry in rendered(values) for _, pod in pods(entry)]
            assert any(wanted.items() <= found.items() for found in labels), f"{values}: {selector}"


def test_objects_that_the_documents_name_exist() -> None:
    kinds = {"rayservice": "RayService", "statefulset": "StatefulSet", "deploy": "Deployment", "cronjob": "CronJob", "secret": "Secret"}
    known = {(entry["kind"], entry["metadata"]["name"]) for values in (*VALUES, "everything") for entry in rendered(values)}
    for path in DOCS:
        named = re.findall(rf"\b({'|'.join(kinds)})[/ ](matinee[\w-]*)", path.read_text(encoding="utf-8"))
        for kind, name in named:
            assert (kinds[kind], name) in known, f"{path.name}: {kind} {name}"


def test_versions_are_pinned() -> None:
    text = (ROOT / "k8s" / "prerequisites.md").read_text(encoding="utf-8")
    installs = re.findall(r"helm (?:install|upgrade)[^\n]*(?:\\\n[^\n]*)*", text)
    assert installs
    for line in installs:
        assert re.search(r"--version v?\d+\.\d+\.\d+", line), line


def test_the_kind_cluster_file_is_one() -> None:
    [cluster] = objects(ROOT / "k8s" / "kind" / "cluster.yaml")
    assert cluster["apiVersion"] == "kind.x-k8s.io/v1alpha4"
    assert all(re.search(r":v\d+\.\d+\.\d+$", node["image"]) for node in cluster["nodes"])
