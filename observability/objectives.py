"""What the rules promise and where they warn: the chart's `alerts` values, as the tokens that the rules' text holds.

The text with tokens goes into the chart, which fills them in from its values; here the same is done from `values.yaml` for a Prometheus
without an operator. Does not know the rules.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "helm" / "matinee"

SELECTOR = "<selector>"
"""Last in every selector: a release's rules look at its own series only, so that two releases don't alert for each other."""

TOKENS: dict[str, str] = {
    "interval": "interval",
    "runbooks": "runbooks",
    "availability": "availability",
    "latency": "latency.objective",
    "latency_bound": "latency.thresholdMs",
    "recall_drop": "recall.drop",
    "recall_minimum": "recall.minimum",
    "recall_ann": "recall.ann",
    "recall_unknown": "recall.unknown",
    "recall_window": "recall.window",
    "recall_baseline": "recall.baseline",
    "recall_for": "recall.for",
    "degraded": "degraded",
    "refused": "refused",
    "queue_wait": "queueWaitMs",
    "index_age": "indexMaxAgeHours",
    "probe_silence": "probeSilenceMinutes",
    "sync_age": "syncMaxAgeHours",
}
"""Token -> its place below `alerts` in values.yaml."""


def defaults() -> dict[str, Any]:
    """The chart's `alerts` values as they are shipped."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    alerts: dict[str, Any] = values["alerts"]
    return alerts


def fill(text: str, alerts: Mapping[str, Any]) -> str:
    """The rules' text without tokens. `SELECTOR` stands where a release's own series are chosen."""
    if not alerts["runbooks"]:
        text = re.sub(r"\n *runbook_url: .*", "", text)
    for token, path in TOKENS.items():
        value: Any = alerts
        for key in path.split("."):
            value = value[key]
        text = text.replace(f"<{token}>", _bound(value) if token == "latency_bound" else str(value))  # noqa: S105
    return text


def of_all_releases(text: str) -> str:
    """The rules' text for every series there is, without `SELECTOR`."""
    # Every target of a Prometheus has `up`, also what is not ours.
    text = re.sub(rf"\bup\{{{SELECTOR}\}}", 'up{job=~".*matinee.*"}', text)
    return text.replace(f",{SELECTOR}", "").replace(f"{{{SELECTOR}}}", "").replace(SELECTOR, "")


def _bound(milliseconds: float) -> str:
    """A histogram's bound as it is exported, 500.0."""
    return f"{float(milliseconds):.1f}"
