"""The generated files of this package: the dashboards and the rules, for the chart and for a Prometheus without an operator."""

import json
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability import models, overview, recall
from observability.objectives import CHART, defaults, fill, of_all_releases
from observability.panels import build
from observability.rules import groups

BOARDS: tuple[Any, ...] = (overview, models, recall)
PLAIN = Path(__file__).parent / "rules.yaml"

_CHART_NOTE = "# Made by `make generate`. What stands in <angle brackets> is filled in by the chart.\n"
_PLAIN_NOTE = "# Made by `make generate`: the chart's rules with its default objectives, for a Prometheus without an operator.\n"


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    text = yaml.safe_dump({"groups": groups()}, sort_keys=False, width=10_000, allow_unicode=True)
    boards = {CHART / "files" / "dashboards" / f"{board.UID}.json": dashboard(board) for board in BOARDS}
    return {CHART / "files" / "rules.yaml": _CHART_NOTE + text, PLAIN: _PLAIN_NOTE + of_all_releases(fill(text, defaults())), **boards}


def dashboard(board: Any) -> str:
    built = build(board.UID, board.TITLE, board.DESCRIPTION, board.ROWS)
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
