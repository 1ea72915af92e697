"""Schema inference: the rules of a table's columns, from one pass over all of its rows.

Date order, decimal sign, list separators and which columns hold numbers are decided once for the whole table, so that no row is read by
a rule that a later row contradicts. What the table leaves open is an error that names the flag to set. Does not make items (`builder`).
"""

import html
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from matinee.catalogue.builder import Builder
from matinee.catalogue.cells import CellError
from matinee.catalogue.columns import SYNONYMS, YEARS_OUTSIDE_IDS, assign, key, squash
from matinee.catalogue.dates import DateColumn
from matinee.catalogue.dialects import NAMES
from matinee.catalogue.numerals import NumberColumn
from matinee.catalogue.rows import ReadOptions, Row, Table, no_progress
from matinee.catalogue.rules import ReadingRules
from matinee.catalogue.summary import ColumnSummary
from matinee.errors import SourceError

MAX_COLUMNS = 500
MAX_FACTS = {"numbers": 32, "extra": 28, "people": 16}
# How many cells with commas outweigh one with a sign that separates more surely.
_ODD = 3
_PLAIN = str.maketrans("，、；｜", ",,;|")


@dataclass
class ListColumn:
    """What was seen in a column of lists: in how many cells each separator stands, and whether commas stand inside names.

    One odd cell decides nothing: a name may hold any of the signs.
    """

    bars: int = 0
    semicolons: int = 0
    slashes: int = 0
    # `Drama / Crime`, where `Sci-Fi/Fantasy` is one genre.
    spaced: int = 0
    commas: int = 0
    inverted: int = 0

    def observe(self, value: Any) -> None:
        if not isinstance(value, str) or value.lstrip().startswith(("[", "{", "(", "c(")):
            return
        # An entity's semicolon is none.
        text = html.unescape(value) if "&" in value else value
        text = text.translate(_PLAIN)
        self.spaced += " / " in text
        if "|" in text or ";" in text:
            self.bars += "|" in text
            self.semicolons += ";" in text
        elif "/" in text and all(" " in part.strip() for part in text.split("/")):
            self.slashes += 1
        elif "," in text:
            self.commas += 1
            parts = [part.strip() for part in text.split(",")]
            # "Tolkien, J.R.R."
            self.inverted += len(parts) == 2 and " " not in parts[0] and bool(re.search(r"[\w.]", parts[1]))

    def separator(self, *, people: bool) -> str | None:
        signs = {"|": self.bars, ";": self.semicolons} | ({"/": self.slashes} if people else {" / ": self.spaced})
        sign = max(signs, key=signs.__getitem__)
        commas = self.commas - (self.inverted if people else 0)
        if signs[sign] and signs[sign] * _ODD >= commas:
            return sign
        if people and self.inverted > 0.8 * self.commas:
            return None
        return "," if self.commas else None


class SchemaInference:
    """Looks at every row of a table and then says how to build items from them."""

    def __init__(self, table: Table, mapping: Mapping[str, str], kind: str | None, options: ReadOptions) -> None:
        self._table = table
        self._kind = kind
        self._options = options
        self._mapped = {squash(column) for column in mapping.values()}
        self.warnings: list[str] = []
        columns = self._columns = [column for column in table.columns or _keys(table) if column]
        # --kind is stronger than a column that is merely named like one, such as "type".
        requested = {"kind": "", **mapping} if kind and "kind" not in columns else mapping
        self._targets = assign(columns, requested, self.warnings)
        self._dates: dict[str, DateColumn] = {}
        self._numbers: dict[str, NumberColumn] = {}
        self._lists: dict[str, ListColumn] = {}
        for column, target in self._targets.items():
            group = target.partition(".")[0]
            if group == "year":
                self._dates[column] = DateColumn(column)
            elif group in ("numbers", "other") and target != "numbers":
                self._numbers[column] = NumberColumn(column, objects=group == "numbers")
            elif group in ("genres", "people"):
                self._lists[column] = ListColumn()

    def infer(self) -> Builder:
        """One pass over the table. Raises `SourceError` for what can be read in two ways."""
        observers: list[tuple[str, Callable[[Any], None]]] = [
            (column, values.observe) for group in (self._dates, self._numbers, self._lists) for column, values in group.items()
        ]
        # Repaired rows follow the rules of the others; where there are no others, they make them.
        for repaired in (False, True):
            seen = False
            for row in self._table.rows(no_progress):
                if isinstance(row, Row) and (row.repaired is not None) == repaired:
                    seen = True
                    for column, observe in observers:
                        # A value that can't be looked at is rejected with its row when the items are made.
                        with suppress(CellError):
                            observe(row.values.get(column))
            if seen:
                break
        builder = Builder(targets=self._targets, rules=ReadingRules(strict=self._options.strict), kind=self._kind)
        if squash(builder.column("title") or "") not in self._mapped:
            builder.other_titles = tuple(
                column for name in SYNONYMS["title"] for column in self._columns if self._is_other_title(column, name)
            )
        self._settle_dates(builder)
        self._settle_numbers(builder)
        people = {column for column, target in self._targets.items() if target.startswith("people")}
        builder.rules.separators = {column: values.separator(people=column in people) for column, values in self._lists.items()}
        self._limit()
        for column in self._columns:
            builder.rules.summary.fields[column] = ColumnSummary(column, self._targets.get(column, ""), self._rules(builder, column))
        return builder

    def _is_other_title(self, column: str, name: str) -> bool:
        return squash(column) == name and self._targets.get(column, "").startswith(("other.", "extra."))

    def _rules(self, builder: Builder, column: str) -> dict[str, str]:
        rules = {}
        separator = builder.rules.separators.get(column)
        if separator:
            rules["separator"] = NAMES.get(separator, separator)
        if column in builder.rules.signs and self._targets.get(column, "").startswith("numbers."):
            rules["decimal sign"] = builder.rules.signs[column]
        if self._targets.get(column) == "year":
            rules |= builder.rules.dates[column].rules()
        return rules

    def _settle_dates(self, builder: Builder) -> None:
        for column, dates in self._dates.items():
            mapped = squash(column) in self._mapped
            if mapped or (dates.was_readable() and squash(column) not in YEARS_OUTSIDE_IDS):
                builder.id_years = column
            if dates.is_flag() and not mapped:
                builder.rules.dates[column] = dates.decide(self._options, [])
            if (dates.bad > dates.total / 2 or dates.is_flag()) and not mapped:
                self.warnings.append(f"column {column!r} is named like a date, but most of its values are none: kept as an extra fact")
                self._targets[column] = f"extra.{key(column)}"
            else:
                builder.rules.dates[column] = dates.decide(self._options, self.warnings)

    def _settle_numbers(self, builder: Builder) -> None:
        for column, numbers in self._numbers.items():
            target = self._targets[column]
            group, _, name = target.partition(".")
            share = numbers.share()
            if group == "other":
                self._targets[column] = f"numbers.{name}" if share == 1 else f"extra.{name}"
            elif numbers.shapes and share < 0.5 and squash(column) not in self._mapped:
                self.warnings.append(
                    f"column {column!r} is named like {target}, but most of its values are no numbers: kept as an extra fact"
                )
                self._targets[column] = f"extra.{key(column)}"
        used = [numbers for column, numbers in self._numbers.items() if self._targets[column].startswith("numbers.")]
        if self._options.decimal:
            signs = {numbers.name: self._options.decimal for numbers in used}
        else:
            seen = {sign for sign in (numbers.evidence() for numbers in used) if sign}
            hint = seen.pop() if len(seen) == 1 else None
            signs = {numbers.name: numbers.decide(hint, self._table.delimiter) for numbers in used}
        builder.rules.signs = signs

    def _limit(self) -> None:
        for group, limit in MAX_FACTS.items():
            columns = [column for column, target in self._targets.items() if target.startswith(f"{group}.")]
            for column in columns[limit:]:
                del self._targets[column]
            if columns[limit:]:
                left_out = ", ".join(repr(column[:60]) for column in columns[limit:][:20])
                self.warnings.append(f"only the first {limit} {group} columns were kept; left out: {left_out}")


def _keys(table: Table) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for row in table.rows(no_progress):
        if isinstance(row, Row):
            keys.update(dict.fromkeys(row.values))
            if len(keys) > MAX_COLUMNS:
                raise SourceError(f"{row.place}: more than {MAX_COLUMNS} different keys: give each object the same keys")
    if not keys:
        raise SourceError("no row of the source is a whole object: it is of another kind, or damaged from its start")
    return tuple(keys)
