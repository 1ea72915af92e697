"""The builder: makes one row into one clean `Item`, by the rules that hold for its columns, and knows what derived ids are made of.

Only a row without a title has no item. Does not read files, does not find the rules (`inference`) and does not read cells (`draft`).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from matinee.catalogue.cells import CellError, as_text, by_language, is_blank, is_nothing, repair, shorten
from matinee.catalogue.draft import Draft, read_id
from matinee.catalogue.rows import Row
from matinee.catalogue.rules import ColumnRules, ReadingRules
from matinee.catalogue.summary import ColumnSummary, Summary
from matinee.items import MAX_NAME, MAX_TITLE, MAX_YEAR, MIN_YEAR, NO_KIND, Item


class Built(NamedTuple):
    """`about` is the text that tells items of the same kind, title and year apart; `is_new`: an earlier reader had no such item."""

    item: Item
    about: str
    repaired: bool
    is_new: bool


@dataclass(kw_only=True)
class Builder:
    """Makes items from rows. `targets` says what each column is.

    `id_years`: the column whose years are part of derived ids. It is the one that an earlier reader read as years, rightly or not.
    `other_titles`: columns that are also named like titles, for rows whose title is empty.
    """

    targets: dict[str, str]
    rules: ReadingRules
    kind: str | None = None
    id_years: str | None = None
    other_titles: tuple[str, ...] = ()

    @classmethod
    def of(cls, kept: ColumnRules) -> Self:
        """A builder that reads rows as the one did whose rules were kept."""
        summary = Summary(fields={column: ColumnSummary(column, kept.targets.get(column, "")) for column in kept.columns})
        rules = ReadingRules(kept.strict, dict(kept.dates), dict(kept.signs), dict(kept.separators), summary)
        return cls(targets=dict(kept.targets), rules=rules, kind=kept.kind, id_years=kept.id_years, other_titles=kept.other_titles)

    def column_rules(self) -> ColumnRules:
        """What `of` makes such a builder of."""
        rules = self.rules
        return ColumnRules(
            columns=tuple(rules.summary.fields),
            targets=self.targets,
            kind=self.kind,
            strict=rules.strict,
            id_years=self.id_years,
            other_titles=self.other_titles,
            dates=rules.dates,
            signs=rules.signs,
            separators=rules.separators,
        )

    def column(self, target: str) -> str | None:
        return next((column for column, name in self.targets.items() if name == target), None)

    def identity(self, row: Row) -> tuple[tuple[str, str, str], bool]:
        """Kind, title and year as an id is derived from them, and whether the row is new. Raises `CellError`."""
        title, _ = self._title(row.values)
        year, is_new = self._id_year(row)
        return (self._kind(row.values), title.casefold(), str(year)), is_new

    def own_id(self, values: Mapping[str, Any]) -> str | None:
        """The catalogue's own id of a row, None where it has none that can be read."""
        column = self.column("id")
        try:
            return None if column is None else read_id(values.get(column))
        except CellError:
            return None

    def item(self, row: Row) -> Built:
        """The row's item. Raises `CellError` with the reason why there is none."""
        title, broken = self._title(row.values)
        draft = Draft(self.rules, row)
        for column, target in self.targets.items():
            draft.take(column, target, row.values.get(column))
        item = draft.item(title, self._kind(row.values))
        self.rules.summary.observe_year(item.year)
        self.rules.summary.other_titles += self._title_column(row.values) != self.column("title")
        id_year, is_new = self._id_year(row)
        if item.id is None and (title.casefold(), id_year) != (item.title.casefold(), item.year):
            item = item.model_copy(update={"identity": (title, id_year)})
        return Built(item, self._about(row.values) or item.overview, draft.repaired or broken, is_new)

    def _title(self, values: Mapping[str, Any]) -> tuple[str, bool]:
        """The title with only its encoding repaired, which ids are derived from, and whether that was broken. Raises `CellError`."""
        column = self._title_column(values)
        try:
            title, broken = repair(as_text(values.get(column))) if column else ("", False)
        except CellError as error:
            raise CellError(f"column {column!r}: {error}") from None
        if not title:
            raise CellError("the title is missing")
        return title if self.rules.strict else shorten(title, MAX_TITLE), broken

    def _title_column(self, values: Mapping[str, Any]) -> str | None:
        column = self.column("title")
        return next((name for name in (column, *self.other_titles) if name and not is_blank(values.get(name))), column)

    def _kind(self, values: Mapping[str, Any]) -> str:
        column = self.column("kind")
        try:
            own = "" if column is None or is_nothing(values.get(column)) else repair(as_text(values[column]))[0]
        except CellError:
            own = ""
        return (own if 0 < len(own) <= MAX_NAME else "") or self.kind or NO_KIND

    def _id_year(self, row: Row) -> tuple[int | None, bool]:
        """The year in a derived id, and whether the row is new: an earlier reader could not read its year, and made no item."""
        title = self.column("title")
        is_new = row.repaired is not None or self._title_column(row.values) != title or by_language(row.values.get(title or "")) is not None
        if self.id_years is None:
            return None, is_new
        dates, value = self.rules.dates[self.id_years], row.values.get(self.id_years)
        try:
            return dates.id_year(value), is_new
        except CellError:
            with suppress(CellError):
                year = dates.year(value)
                return (year if year is not None and MIN_YEAR <= year <= MAX_YEAR else None), True
            return None, True

    def _about(self, values: Mapping[str, Any]) -> str:
        """The overview with only its encoding repaired: what some ids are derived from."""
        value = values.get(self.column("overview") or "")
        return repair(value)[0] if isinstance(value, str) and "\0" not in value and not is_nothing(value) else ""
