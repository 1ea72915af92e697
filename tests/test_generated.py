"""Committed files that are made from code are as `make generate` writes them, and every setting says what it does."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from generate import files
from matinee.settings.reference import entry_of
from matinee.settings.serving import KeySettings
from matinee.settings.tree import Settings

ROOT = Path(__file__).parents[1]
GENERATED = files()


@pytest.mark.parametrize("path", sorted(GENERATED), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_file_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATED[path], "run `make generate`"


def undescribed(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Settings without a description, sections without a docstring."""
    missing = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        kind = entry_of(field) or kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            missing += undescribed(kind, f"{prefix}{name}.") + ([] if kind.__doc__ else [f"{prefix}{name}"])
        elif not field.description:
            missing.append(f"{prefix}{name}")
    return missing


def test_every_setting_has_a_description() -> None:
    assert undescribed(Settings) == []


def test_the_fields_of_a_lists_entries_are_looked_at_and_shown() -> None:
    class Entry(BaseModel):
        """An entry."""

        plain: int = 0

    class Holder(BaseModel):
        entries: tuple[Entry, ...] = Field((), description="some")

    assert undescribed(Holder) == ["entries.plain"]
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, field in KeySettings.model_fields.items():
        assert f"| `{name}` | {field.description} |" in page


def test_the_chart_shows_the_bounds_of_a_setting() -> None:
    values = (ROOT / "helm" / "matinee" / "values.yaml").read_text(encoding="utf-8")
    assert "# (int >=64 <=8192) longest prompt" in values


def test_the_page_of_the_command_line_has_what_only_a_jobs_process_knows() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    ingest = page.partition("## matinee ingest\n")[2].partition("\n## ")[0]
    assert {"| `SOURCE` |", "| `--attributes` |", "| `--key` (`MATINEE_KEY`) |"} <= {
        row[: row.index("|", 2) + 1] for row in ingest.splitlines() if row.startswith("| `")
    }
    assert {"## matinee index rollback", "## matinee items put", "## python -m serve key"} <= set(page.splitlines())
