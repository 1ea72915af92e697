"""The rule groups, recording rules first: what Prometheus evaluates. They still have tokens, which `objectives` or the chart fill in."""

from typing import Any

from observability import recordings
from observability.alerts import (
    Alert,
    answer_alerts,
    burn_alerts,
    index_alerts,
    model_alerts,
    queue_alerts,
    recall_alerts,
    replica_alerts,
    serve_alerts,
    sync_alerts,
)
from observability.objectives import defaults, fill, of_all_releases


def groups() -> list[dict[str, Any]]:
    """The rule groups, ready to be written as YAML."""
    return [
        _group("objectives", recordings.burn_rates(), burn_alerts()),
        _group("quality", recordings.quality(), [*recall_alerts(), *answer_alerts(), *sync_alerts()]),
        _group("parts", [], [*queue_alerts(), *index_alerts(), *model_alerts(), *replica_alerts(), *serve_alerts()]),
    ]


def _group(name: str, recorded: list[dict[str, Any]], alerts: list[Alert]) -> dict[str, Any]:
    return {"name": f"matinee-{name}", "interval": "<interval>", "rules": [*recorded, *(alert.rule() for alert in alerts)]}


def alerts() -> list[Alert]:
    return [
        *burn_alerts(),
        *recall_alerts(),
        *answer_alerts(),
        *sync_alerts(),
        *queue_alerts(),
        *index_alerts(),
        *model_alerts(),
        *replica_alerts(),
        *serve_alerts(),
    ]


def alert_table() -> str:
    """Each alert with its severities, how long it waits before it fires, and its runbook, in Markdown; with the default objectives."""
    by_name: dict[str, list[Alert]] = {}
    for alert in alerts():
        by_name.setdefault(alert.name, []).append(alert)
    rows = ["| alert | severity | holds for | runbook |", "| --- | --- | --- | --- |"]
    for name, variants in by_name.items():
        severities = ", ".join(dict.fromkeys(one.severity for one in variants))
        waits = ", ".join(dict.fromkeys(one.lasts for one in variants))
        runbook = variants[0].runbook
        rows.append(f"| `{name}` | {severities} | {waits} | [{runbook.removesuffix('.md')}](../k8s/runbooks/{runbook}) |")
    return of_all_releases(fill("\n".join(rows), defaults()))
