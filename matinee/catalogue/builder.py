"""The builder: makes one row into one clean `Item`, by the rules that hold for its columns.

Does not read files, does not find the rules (`learning`) and does not decide ids (`reader`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from matinee.catalogue.cells import CellError, as_names, as_text, is_nothing, repair
from matinee.catalogue.columns import key
from matinee.catalogue.dates import Dates
from matinee.catalogue.numerals import number
from matinee.catalogue.rows import Row
from matinee.items import MAX_LIST, Item

MAX_FACT = 2000


@dataclass
class Builder:
    """Makes items from rows. `targets` says what each column is; the other rules are per column."""

    targets: dict[str, str]
    kind: str | None = None
    dates: dict[str, Dates] = field(default_factory=dict)
    signs: dict[str, str] = field(default_factory=dict)
    separators: dict[str, str | None] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def column(self, target: str) -> str | None:
        return next((column for column, found in self.targets.items() if found == target), None)

    def identity(self, row: Row) -> tuple[str, str, str]:
        """Kind, title and year as an id is derived from them. Raises `CellError`."""
        kind, title, year = self._kind(row.values), self._text(row.values, "title")[0], self._year(row.values)
        return kind, title.casefold(), str(year)

    def has_id(self, row: Row) -> bool:
        column = self.column("id")
        return column is not None and not is_nothing(row.values.get(column))

    def item(self, row: Row) -> tuple[Item, bool]:
        """The item, and whether mojibake was repaired in it. Raises `CellError` with the reason why there is none."""
        facts: dict[str, Any] = {"kind": self._kind(row.values), "people": {}, "numbers": {}, "extra": {}}
        repaired = False
        for column, target in self.targets.items():
            value = row.values.get(column)
            if is_nothing(value) and target != "title":
                continue
            try:
                repaired |= self._fill(facts, column, target, value)
            except CellError as error:
                raise CellError(f"column {column!r}: {error}") from None
        if not facts.get("title"):
            raise CellError("the title is missing")
        try:
            return Item(**facts), repaired
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise CellError(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}") from None

    def _fill(self, facts: dict[str, Any], column: str, target: str, value: Any) -> bool:
        group, _, name = target.partition(".")
        if target in ("title", "overview", "language", "id"):
            facts[target], repaired = repair(as_text(value))
            return repaired
        if target == "year":
            facts["year"] = self.dates[column].year(value)
            if isinstance(value, str) and len(value.strip()) > 4:
                facts["extra"].setdefault(key(column), " ".join(value.split())[:100])
            return False
        if target == "genres":
            facts["genres"], repaired = self._names(column, value)
            return repaired
        if target in ("people", "numbers", "extra"):
            return self._mapping(facts[target], column, target, value)
        if group == "numbers":
            facts["numbers"][name] = number(value, self.signs[column])
        elif group == "people":
            facts["people"][name], repaired = self._names(column, value)
            return repaired
        elif group == "extra":
            return self._fact(facts["extra"], column, name, value)
        return False

    def _mapping(self, facts: dict[str, Any], column: str, target: str, value: Any) -> bool:
        if not isinstance(value, Mapping):
            raise CellError(f"holds a {type(value).__name__}, not an object of {target}")
        repaired = False
        for name, entry in value.items():
            if is_nothing(entry):
                continue
            if target == "numbers":
                facts[name] = number(entry, ".")
            elif target == "people":
                facts[name], broken = self._names(column, entry)
                repaired |= broken
            else:
                repaired |= self._fact(facts, column, name, entry)
        return repaired

    def _fact(self, facts: dict[str, Any], column: str, name: str, value: Any) -> bool:
        if isinstance(value, bytes):
            self._drop(f"{column!r}: bytes, left out")
            return False
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            facts[name], repaired = self._names(column, value)
            return repaired
        if isinstance(value, list | tuple | dict):
            value = json.dumps(value, ensure_ascii=False, default=str)
        text, repaired = repair(as_text(value))
        if len(text) > MAX_FACT:
            self._drop(f"{column!r}: over {MAX_FACT:,} characters, left out")
        else:
            facts[name] = text
        return repaired

    def _names(self, column: str, value: Any) -> tuple[tuple[str, ...], bool]:
        pairs = [repair(name) for name in as_names(value, self.separators.get(column))]
        names = tuple(dict.fromkeys(name for name, _ in pairs if name))
        if len(names) > MAX_LIST:
            self._drop(f"{column!r}: over {MAX_LIST} names, the rest left out")
        return names[:MAX_LIST], any(broken for _, broken in pairs)

    def _drop(self, what: str) -> None:
        self.dropped[what] = self.dropped.get(what, 0) + 1

    def _text(self, values: Mapping[str, Any], target: str) -> tuple[str, bool]:
        column = self.column(target)
        return repair(as_text(values.get(column))) if column else ("", False)

    def _kind(self, values: Mapping[str, Any]) -> str:
        column = self.column("kind")
        own = "" if column is None or is_nothing(values.get(column)) else self._text(values, "kind")[0]
        return own or self.kind or "item"

    def _year(self, values: Mapping[str, Any]) -> int | None:
        column = self.column("year")
        return self.dates[column].year(values.get(column)) if column else None
