"""Write the dashboards and the rules: `python -m observability`.

python -m observability           # helm/matinee/files/{dashboards/*.json,rules.yaml} and observability/rules.yaml
python -m observability --check   # exits 1 where they differ from what it would write
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability import models, overview, recall
from observability.objectives import CHART, defaults, fill
from observability.panels import build
from observability.rules import groups

BOARDS: tuple[Any, ...] = (overview, models, recall)
PLAIN = Path(__file__).parent / "rules.yaml"

_CHART_NOTE = "# Made by `python -m observability`. What stands in <angle brackets> is filled in by the chart.\n"
_PLAIN_NOTE = "# Made by `python -m observability`: the chart's rules with its default objectives, for a Prometheus without an operator.\n"


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    text = yaml.safe_dump({"groups": groups()}, sort_keys=False, width=10_000, allow_unicode=True)
    boards = {CHART / "files" / "dashboards" / f"{board.UID}.json": dashboard(board) for board in BOARDS}
    return {CHART / "files" / "rules.yaml": _CHART_NOTE + text, PLAIN: _PLAIN_NOTE + fill(text, defaults()), **boards}


def dashboard(board: Any) -> str:
    built = build(board.UID, board.TITLE, board.SAYS, board.ROWS)
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(f"stale: {', '.join(map(str, stale))}: run python -m observability")
        return
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
