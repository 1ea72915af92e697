"""What a dashboard asks, read back from its JSON: its panels with the variables filled in. Does not talk to Prometheus."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from observability.objectives import CHART

FOLDER = CHART / "files" / "dashboards"
RATE_INTERVAL = "1m"


@dataclass(frozen=True)
class PanelQuery:
    """One expression of a panel, ready to be asked: for everything that there is."""

    legend: str
    expression: str


@dataclass(frozen=True)
class Panel:
    """A panel's place (x, y, width, height in Grafana's grid) and what it shows."""

    title: str
    kind: str
    unit: str
    none: str
    place: tuple[int, int, int, int]
    queries: tuple[PanelQuery, ...]


def panels(uid: str, rate_interval: str = RATE_INTERVAL) -> Iterator[Panel]:
    """The panels of a committed dashboard, rows left out."""
    for panel in read(uid)["panels"]:
        if panel["type"] == "row":
            continue
        grid, field = panel["gridPos"], panel["fieldConfig"]["defaults"]
        queries = tuple(PanelQuery(t.get("legendFormat", ""), concrete(t["expr"], rate_interval)) for t in panel["targets"])
        place = (grid.get("x", 0), grid.get("y", 0), grid["w"], grid["h"])
        yield Panel(panel["title"], panel["type"], field.get("unit", "short"), field.get("noValue", ""), place, queries)


def read(uid: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text(encoding="utf-8"))
    return dashboard


def concrete(expression: str, rate_interval: str = RATE_INTERVAL) -> str:
    """An expression without Grafana's variables: each of ours at All."""
    return re.sub(r"\$(namespace|release|application|deployment)\b", ".*", expression.replace("$__rate_interval", rate_interval))


def fill_legend(legend: str, labels: dict[str, str]) -> str:
    """A legend with the labels of a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip()
