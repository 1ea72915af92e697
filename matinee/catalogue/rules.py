"""Rules of columns, kept: how a table's rows were read, so that a few of them can be read in the same way later.

What is learned from all rows (separators, decimal signs, which columns hold numbers) can't be learned again from three of them.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from matinee.catalogue.builder import Builder
from matinee.catalogue.dates import Dates
from matinee.catalogue.summary import ColumnSummary, Summary


class ColumnRules(BaseModel):
    """What a `Builder` knows of the columns of one table, as JSON can hold it. `columns` are all of them, used or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    targets: dict[str, str]
    kind: str | None
    strict: bool
    id_years: str | None
    other_titles: tuple[str, ...]
    dates: dict[str, Dates]
    signs: dict[str, str]
    separators: dict[str, str | None]

    @classmethod
    def of(cls, builder: Builder) -> Self:
        return cls(
            columns=tuple(builder.summary.fields),
            targets=builder.targets,
            kind=builder.kind,
            strict=builder.strict,
            id_years=builder.id_years,
            other_titles=builder.other_titles,
            dates=builder.dates,
            signs=builder.signs,
            separators=builder.separators,
        )

    def builder(self) -> Builder:
        """A builder that reads rows as the one did that these rules are of."""
        return Builder(
            targets=dict(self.targets),
            kind=self.kind,
            strict=self.strict,
            id_years=self.id_years,
            other_titles=self.other_titles,
            dates=dict(self.dates),
            signs=dict(self.signs),
            separators=dict(self.separators),
            summary=Summary(fields={column: ColumnSummary(column, self.targets.get(column, "")) for column in self.columns}),
        )
