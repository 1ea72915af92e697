"""The chart, rendered: what the tests of this folder ask of it."""

import gzip
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.helm.helm_tools import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "matinee"
VALUES = ("default", "kind", "single-gpu", "ha", "cpu")
KUBERNETES = "1.37"
SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {
    ("ray.io/v1", "RayCluster"): "raycluster",
    ("ray.io/v1", "RayJob"): "rayjob",
    ("ray.io/v1", "RayService"): "rayservice",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitor",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrule",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproute",
}

Object = dict[str, Any]

# Everything that is off by default, on: so that each template is looked at.
EVERYTHING: dict[str, Any] = {
    "settings": {
        "artifacts": {"uri": "/artifacts"},
        "events": {"uri": "s3://bucket/events"},
        "enhancer": {"adapter": "artifact:" + "a" * 64},
        "serving": {"keys": [{"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}]},
    },
    "image": {"pullSecrets": ["registry"], "digest": "sha256:" + "1" * 64},
    "models": {
        "storage": {"kind": "pvc"},
        "hub": {"existingSecret": "hub"},
        "store": {"existingSecret": "s3", "existingClaim": "artifacts"},
    },
    "head": {"nodeSelector": {"pool": "system"}, "affinity": {"nodeAffinity": {}}},
    "rayService": {"upgradeStrategy": "NewClusterWithIncrementalUpgrade", "gatewayClassName": "istio"},
    "gcsFaultTolerance": {"backend": "rocksdb"},
    "auth": {"existingSecret": "ray-token"},
    "metrics": {"podMonitor": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
    "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
    "probe": {"enabled": True, "existingSecret": "probe-key", "existingClaim": "queries"},
    "qdrant": {"snapshots": {"enabled": True}, "storageClass": "fast"},
    "ingest": {
        "enabled": True,
        "source": "/data/films.csv",
        "kind": "film",
        "map": {"overview": "Plot"},
        "replace": True,
        "via": "local",
        "existingClaim": "films",
        "settings": {"embedder": {"model": "hub:a/b"}},
    },
    "sync": {
        "enabled": True,
        "query": "SELECT * FROM films",
        "database": {"existingSecret": "shop"},
        "cursor": "updated_at",
        "deleted": "deleted_at",
        "kind": "film",
        "map": {"overview": "Plot"},
        "delete": False,
        "apiKey": {"existingSecret": "sync-key"},
        "credentials": {"existingSecret": "s3"},
        "existingClaim": "films",
        "egress": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
    },
    "ingress": {"enabled": True, "className": "nginx", "host": "films.example", "tlsSecret": "films-tls"},
    "httpRoute": {"enabled": True, "gateway": "public", "gatewayNamespace": "gateways", "hostnames": ["films.example"]},
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "web"}}}],
        "egress": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    },
    "serviceAccount": {"annotations": {"role": "matinee"}},
    "podLabels": {"team": "films"},
    "podAnnotations": {"note": "x"},
    "env": {"HTTPS_PROXY": "http://proxy:3128"},
    "priorityClassName": "high",
    "test": {"existingSecret": "test-key"},
}

# The engine inside the Retriever, and what it asks of the rest.
EMBEDDED: dict[str, Any] = {
    "settings": {"index": {"engine": "edge", "shards": 1, "replication_factor": 1, "deployment": {"min_replicas": 1, "max_replicas": 1}}},
    "qdrant": {"mode": "none"},
    "models": {"storage": {"kind": "pvc"}},
    "rayService": {"upgradeStrategy": "None"},
}


# What no chart can know.
API_SERVER = {"apiServerCidr": "10.0.0.1/32"}
API_SERVER_ARGS = ["--set", "networkPolicy.apiServerCidr=10.0.0.1/32"]


class RenderError(Exception):
    """Helm refused; the text is what it says."""


def run(*args: str, major: int = 4, stdin: str | None = None) -> str:
    done = subprocess.run([str(helm(major)), *args], capture_output=True, text=True, input=stdin, check=False)
    if done.returncode:
        raise RenderError(done.stderr + done.stdout)
    return done.stdout


def values_args(values: str) -> list[str]:
    return [] if values == "default" else ["--values", str(CHART / f"values-{values}.yaml")]


def template(values: str = "default", *, given: Mapping[str, Any] | None = None, release: str = "matinee", major: int = 4) -> list[Object]:
    """The objects that a values file (and `given` on top) renders. Raises `RenderError`."""
    policy = API_SERVER | dict((given or {}).get("networkPolicy", {}))
    stdin = json.dumps(dict(given or {}) | {"networkPolicy": policy})
    text = run("template", release, str(CHART), "--namespace", "ns", *values_args(values), "--values", "-", major=major, stdin=stdin)
    # The loader in C: a rendered chart is thousands of lines, and is read in nearly every test.
    return [entry for entry in yaml.load_all(text, Loader=yaml.CSafeLoader) if entry]


@cache
def rendered(values: str) -> tuple[Object, ...]:
    """The objects of a values file, or of `everything` on top of the default one; rendered once."""
    return tuple(template(given=EVERYTHING)) if values == "everything" else tuple(template(values))


def one(objects: Sequence[Object], kind: str, name: str | None = None) -> Object:
    [found] = [entry for entry in objects if entry["kind"] == kind and name in (None, entry["metadata"]["name"])]
    return found


def validate(entry: Object) -> None:
    """Raises where an object is not exactly what its kind's schema says, or its kind is unknown."""
    custom = CUSTOM.get((entry["apiVersion"], entry["kind"]))
    if custom is None:
        kubernetes_validate.validate(entry, KUBERNETES, strict=True)
        return
    schema = json.loads(gzip.decompress((SCHEMAS / f"{custom}_v1.json.gz").read_bytes()))
    jsonschema.Draft7Validator(schema).validate(entry)
    for name, pod in pods(entry):
        # The custom resources' own schemas leave parts of a pod open.
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}, KUBERNETES, strict=True
        )


def pods(entry: Object) -> Iterator[tuple[str, Object]]:
    """Name and template of every pod that an object brings."""
    spec = entry.get("spec") or {}
    match entry["kind"]:
        case "Pod":
            yield entry["metadata"]["name"], entry
        case "Job" | "StatefulSet" | "Deployment":
            yield entry["metadata"]["name"], spec["template"]
        case "CronJob":
            yield entry["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]
        case "RayService" | "RayCluster" | "RayJob":
            cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
            yield "head", cluster["headGroupSpec"]["template"]
            for group in cluster.get("workerGroupSpecs", []):
                yield f"worker {group['groupName']}", group["template"]
            if "submitterPodTemplate" in spec:
                yield "submitter", spec["submitterPodTemplate"]


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def serve_config(objects: Sequence[Object]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return config


def application(objects: Sequence[Object]) -> dict[str, Any]:
    [found] = serve_config(objects)["applications"]
    assert isinstance(found, dict)
    return found
