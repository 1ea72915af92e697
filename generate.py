"""Write every committed file that is made from code: `make generate`.

The settings page, the OpenAPI document, the tables of metrics, the chart's values comments, schema and README table, dashboards and rules.
A test fails where a file is not as this writes it.
"""

from pathlib import Path

import helm.generate
import observability.files
from matinee.settings import reference
from serve.api import openapi
from serve.telemetry.declare import table
from serve.telemetry.metrics import Metrics, ProbeMetrics

DOCS = Path(__file__).parent / "docs"


def with_metric_tables(page: str) -> str:
    """The page with the tables between its markers made anew."""
    for name, metrics in (("metrics", Metrics), ("probe metrics", ProbeMetrics)):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{table(metrics)}\n{end}{rest.partition(end)[2]}"
    return page


def files() -> dict[Path, str]:
    """Path -> what it should hold."""
    return {
        DOCS / "settings.md": reference.page(),
        DOCS / "openapi.json": openapi.document(),
        DOCS / "observability.md": with_metric_tables((DOCS / "observability.md").read_text(encoding="utf-8")),
        **helm.generate.files(),
        **observability.files.files(),
    }


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
