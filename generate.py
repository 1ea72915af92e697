"""Write every committed file that is made from code: `make generate`.

The settings page, the OpenAPI document, the chart's values comments, schema and README table, dashboards and rules. A test fails
where a file is not as this writes it.
"""

from pathlib import Path

import helm.generate
import observability.files
from matinee.settings import reference
from serve.api import openapi

DOCS = Path(__file__).parent / "docs"


def files() -> dict[Path, str]:
    """Path -> what it should hold."""
    return {
        DOCS / "settings.md": reference.page(),
        DOCS / "openapi.json": openapi.document(),
        **helm.generate.files(),
        **observability.files.files(),
    }


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
