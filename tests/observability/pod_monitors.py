"""A PodMonitor as the Prometheus operator turns it into a scrape configuration, for one pod at an address that is known.

The relabelings that the operator generates stand first, then those of the PodMonitor, as in its own `generatePodMonitorConfig`; discovery,
which takes a cluster, is replaced by the meta labels that it would find.
"""

import re
from collections.abc import Mapping
from typing import Any


def scrape_config(monitor: Mapping[str, Any], pod: Mapping[str, Any], name: str, namespace: str, address: str) -> dict[str, Any]:
    """How Prometheus would scrape this pod (a template with labels and a container that has the port)."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    [container] = [c["name"] for c in pod["spec"]["containers"] if endpoint["port"] in [port.get("name") for port in c.get("ports", [])]]
    labels = pod["metadata"]["labels"]
    found = {"namespace": namespace, "pod_name": name, "pod_container_name": container, "pod_container_port_name": endpoint["port"]}
    found |= {f"pod_label_{_clean(key)}": value for key, value in labels.items()}
    return {
        "job_name": f"podMonitor/{namespace}/{monitor['metadata']['name']}/0",
        "metrics_path": endpoint["path"],
        # Not the PodMonitor's, which a test would wait for too long.
        "scrape_interval": "4s",
        "scrape_timeout": "4s",
        "honor_labels": endpoint.get("honorLabels", False),
        "static_configs": [{"targets": [address], "labels": {f"__meta_kubernetes_{key}": value for key, value in found.items()}}],
        "relabel_configs": [*_selected(monitor["spec"]), *_generated(monitor, endpoint), *map(_snake, endpoint.get("relabelings", []))],
        "metric_relabel_configs": [_snake(rule) for rule in endpoint.get("metricRelabelings", [])],
    }


def _selected(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    wanted = {key: [value] for key, value in spec["selector"].get("matchLabels", {}).items()}
    for expression in spec["selector"].get("matchExpressions", []):
        assert expression["operator"] == "In"
        wanted[expression["key"]] = expression["values"]
    return [
        {"action": "keep", "source_labels": [f"__meta_kubernetes_pod_label_{_clean(key)}"], "regex": "|".join(values)}
        for key, values in wanted.items()
    ]


def _generated(monitor: Mapping[str, Any], endpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    copied = {"namespace": "namespace", "pod_container_name": "container", "pod_name": "pod"}
    copied |= {f"pod_label_{_clean(key)}": _clean(key) for key in monitor["spec"].get("podTargetLabels", [])}
    return [
        {"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"]},
        *({"source_labels": [f"__meta_kubernetes_{meta}"], "target_label": label} for meta, label in copied.items()),
        {"target_label": "job", "replacement": f"ns/{monitor['metadata']['name']}"},
        {"target_label": "endpoint", "replacement": endpoint["port"]},
    ]


def _clean(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)


def _snake(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), key): value for key, value in rule.items()}
