"""What was understood of a source: what each column became, how it is read, and how many of its values were read, empty or left out."""

from dataclasses import dataclass, field
from typing import Any

MAX_EXAMPLE = 80


@dataclass
class ColumnSummary:
    """One column: `target` is a field of `Item`, or a place in `people`, `numbers` or `extra`; "" where the column is not used.

    `rules` say how its values are read: separator, decimal sign, date order.
    """

    column: str
    target: str
    rules: dict[str, str] = field(default_factory=dict)
    read: int = 0
    empty: int = 0
    left_out: int = 0
    cut: int = 0
    example: str | None = None
    left_out_example: str | None = None
    cut_example: str | None = None

    def observe_read(self, value: Any) -> None:
        self.read += 1
        if self.example is None:
            self.example = _short(value)

    def lose(self, place: str, value: Any, reason: str) -> None:
        self.left_out += 1
        self.left_out_example = self.left_out_example or f"{place}, {_short(value)}: {reason}"

    def observe_cut(self, place: str, reason: str) -> None:
        self.cut += 1
        self.cut_example = self.cut_example or f"{place}: {reason}"

    def warnings(self) -> list[str]:
        name = repr(self.column[:60])
        lost = f"column {name}: {self.left_out} values can't be read and are left out, the first on {self.left_out_example}"
        cut = f"column {name}: {self.cut} values are cut, the first on {self.cut_example}"
        return [text for text, count in ((lost, self.left_out), (cut, self.cut)) if count]


@dataclass
class Summary:
    """`format` says how the file is written; `years` are the earliest and the latest one; `titles_with_year` have theirs from the title.

    `other_titles` are items whose title column is empty, and another column named like one is not.
    """

    format: dict[str, str] = field(default_factory=dict)
    fields: dict[str, ColumnSummary] = field(default_factory=dict)
    years: tuple[int, int] | None = None
    titles_with_year: int = 0
    other_titles: int = 0

    def observe_year(self, year: int | None) -> None:
        if year is not None:
            low, high = self.years or (year, year)
            self.years = (min(low, year), max(high, year))

    def as_json(self) -> dict[str, Any]:
        fields = [{name: value for name, value in vars(entry).items() if value is not None} for entry in self.fields.values()]
        return {"format": self.format, "years": self.years, "years_from_titles": self.titles_with_year, "fields": fields}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 4 * MAX_EXAMPLE].split())
    return text if len(text) <= MAX_EXAMPLE else f"{text[: MAX_EXAMPLE - 1]}…"
