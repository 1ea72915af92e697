"""A draft: the facts of one row on their way into an `Item`.

An item is never lost for a fact that it can do without: what can't be read, or is out of an item's bounds, is left out and counted with an
example; with `strict` it costs the row. Does not know which ids an item has had (`builder`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from matinee.catalogue import cells
from matinee.catalogue.cells import CellError, as_long_text, as_names, as_text, is_nothing, is_placeholder, repair, shorten
from matinee.catalogue.columns import key
from matinee.catalogue.numerals import number
from matinee.catalogue.people import join_suffixes
from matinee.catalogue.rows import Row
from matinee.catalogue.rules import ReadingRules
from matinee.catalogue.summary import ColumnSummary
from matinee.errors import kind_of
from matinee.items import MAX_FACT, MAX_FACTS, MAX_LIST, MAX_NAME, MAX_OVERVIEW, MAX_ROLES, MAX_TITLE, Item
from matinee.patterns import message_of
from matinee.text.qualifiers import title_year

_LIMITS = {"people": MAX_ROLES, "numbers": MAX_FACTS, "extra": MAX_FACTS}


def read_id(value: Any) -> str | None:
    """A catalogue's own id, None where the cell is empty. Raises `CellError`."""
    if is_nothing(value):
        return None
    own = repair(as_text(value))[0]
    if len(own) > MAX_NAME:
        raise CellError(f"an id has at most {MAX_NAME} characters, but this has {len(own):,}: {shorten(own, 60)}")
    return own or None


class Draft:
    """An item in the making."""

    def __init__(self, rules: ReadingRules, row: Row) -> None:
        self._rules = rules
        self._row = row
        self._facts: dict[str, Any] = {"people": {}, "numbers": {}, "extra": {}}
        # Which column a fact is from: its field, or its field and its key.
        self._source: dict[tuple[str, ...], str] = {}
        self.repaired = False

    def take(self, column: str, target: str, value: Any) -> None:
        """One cell. A value that can't be read is left out, or with `strict` raises `CellError`."""
        entry = self._entry(column)
        if target == "title":
            if cells.is_blank(value):
                entry.empty += 1
                return
            entry.observe_read(value)
            if isinstance(value, str) and len(value) > MAX_TITLE and not self._rules.strict:
                entry.observe_cut(self._row.place, f"{len(value):,} characters, the first {MAX_TITLE} are kept")
            return
        empty = is_nothing(value) if target in ("id", "kind") else is_placeholder(value)
        if empty:
            entry.empty += 1
            return
        try:
            if self._fill(column, target, value):
                entry.observe_read(value)
            else:
                entry.empty += 1
        except CellError as error:
            self._lose(column, value, str(error))

    def item(self, title: str, kind: str) -> Item:
        """The item, without the facts that are out of its bounds. Raises `CellError`."""
        facts = self._facts
        facts |= {"title": title, "kind": kind}
        year = title_year(title) if facts.get("year") is None else None
        if year is not None:
            facts["year"] = year
            self._rules.summary.titles_with_year += 1
        for group, limit in _LIMITS.items():
            for name in list(facts[group])[limit:]:
                self._lose(self._source[group, name], facts[group].pop(name), f"an item has at most {limit} {group}")
        while True:
            try:
                return Item(**facts)
            except ValidationError as error:
                self._prune(error)

    def _prune(self, error: ValidationError) -> None:
        """Leave out the facts that the item refuses. Raises `CellError` where it can't do without one."""
        for problem in error.errors(include_url=False):
            place = tuple(str(part) for part in problem["loc"])
            nested = len(place) > 1 and place[:2] in self._source
            column = self._source.get(place[:2] if nested else place[:1])
            if column is None or self._rules.strict:
                raise CellError(f"{'.'.join(place)}: {message_of(problem)}")
            group, name = (self._facts[place[0]], place[1]) if nested else (self._facts, place[0])
            lost = group.pop(name, None)
            if lost is not None:
                self._entry(column).read -= 1
                self._lose(column, lost, message_of(problem))

    def _entry(self, column: str) -> ColumnSummary:
        return self._rules.summary.fields[column]

    def _lose(self, column: str, value: Any, reason: str) -> None:
        if self._rules.strict:
            raise CellError(f"column {column!r}: {reason}")
        self._entry(column).lose(self._row.place, value, reason)

    def _fill(self, column: str, target: str, value: Any) -> bool:
        """Whether there was something to read."""
        group, _, name = target.partition(".")
        if target == "kind":
            return self._set(column, target, self._text(value, MAX_NAME))
        if target == "id":
            return self._set(column, target, read_id(value))
        if target == "overview":
            return self._set(column, target, self._long_text(column, value, MAX_OVERVIEW))
        if target == "language":
            return self._language(column, value)
        if target == "year":
            year = self._rules.dates[column].year(value)
            self._keep_date(column, value)
            return self._set(column, target, year)
        if target == "genres":
            names = cells.split_crumbs(list(self._names(column, value)))
            return self._set(column, target, self._join(column, self._facts.get("genres", ()), names))
        if target in ("people", "numbers", "extra"):
            return self._mapping(column, target, value)
        return self._entry_of(column, group, name, value)

    def _set(self, column: str, target: str, value: Any) -> bool:
        if value is None or value == ():
            return False
        self._facts[target] = value
        self._source[target,] = column
        return True

    def _entry_of(self, column: str, group: str, name: str, value: Any) -> bool:
        """One entry of `people`, `numbers` or `extra`."""
        made: Any
        if group == "numbers":
            made = number(value, self._rules.signs.get(column, "."))
        elif group == "people":
            made = self._join(column, self._facts[group].get(name, ()), self._names(column, value, people=True))
        else:
            made = self._fact(column, value)
        if made is None or made == ():
            return False
        self._facts[group][name] = made
        self._source[group, name] = column
        return True

    def _mapping(self, column: str, target: str, value: Any) -> bool:
        if not isinstance(value, Mapping):
            raise CellError(f"holds {kind_of(value)}, not an object of {target}")
        kept = False
        for name, entry in value.items():
            if is_placeholder(entry):
                continue
            try:
                kept |= self._entry_of(column, target, key(str(name)), entry)
            except CellError as error:
                self._lose(column, entry, f"{name}: {error}")
        return kept

    def _keep_date(self, column: str, value: Any) -> None:
        """A date that says more than its year stays as a fact."""
        name = key(column)
        if isinstance(value, str) and len(value.strip()) > 4 and name not in self._facts["extra"]:
            self._facts["extra"][name] = " ".join(value.split())[:100]
            self._source["extra", name] = column

    def _language(self, column: str, value: Any) -> bool:
        """An item has one language: the first of several, which stay as a fact."""
        names = self._names(column, value, separator=cells.separator_in(value))
        if len(names) > 1:
            self._entry_of(column, "extra", key(column), list(names))
        return self._set(column, "language", names[0] if names else None)

    def _fact(self, column: str, value: Any) -> str | tuple[str, ...] | None:
        if isinstance(value, bytes):
            raise CellError("holds bytes, not a text")
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            return self._names(column, value)
        if isinstance(value, list | tuple | Mapping):
            value = json.dumps(value, ensure_ascii=False, default=str)
            if len(value) > MAX_FACT:
                raise CellError(f"over {MAX_FACT:,} characters")
        text = self._repair(as_text(value))
        if len(text) > MAX_FACT:
            raise CellError(f"over {MAX_FACT:,} characters")
        return text or None

    def _names(self, column: str, value: Any, *, people: bool = False, separator: str | None = None) -> tuple[str, ...]:
        separator = separator or self._rules.separators.get(column)
        names = as_names(value, separator)
        if people and isinstance(value, str) and separator == ",":
            names = join_suffixes(names)
        kept = cells.unique(self._name(column, self._repair(name)) for name in names if not is_placeholder(name))
        return self._join(column, (), kept)

    def _join(self, column: str, before: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
        """The names of several columns of one list, as many as an item may have."""
        kept = cells.unique((*before, *names))
        if len(kept) > MAX_LIST:
            self._entry(column).observe_cut(self._row.place, f"{len(kept)} names, the first {MAX_LIST} are kept")
        return kept[:MAX_LIST]

    def _name(self, column: str, name: str) -> str:
        if len(name) <= MAX_NAME or self._rules.strict:
            return name
        if " " not in name:
            # An address, or something encoded: a part of it is of no use.
            self._lose(column, name, f"a name has at most {MAX_NAME} characters")
            return ""
        self._entry(column).observe_cut(self._row.place, f"{len(name)} characters, a name has at most {MAX_NAME}")
        return shorten(name, MAX_NAME)

    def _long_text(self, column: str, value: Any, limit: int) -> str | None:
        text = self._repair(as_long_text(value))
        if len(text) > limit and not self._rules.strict:
            self._entry(column).observe_cut(self._row.place, f"{len(text):,} characters, the first {limit:,} are kept")
            text = shorten(text, limit)
        return text or None

    def _text(self, value: Any, limit: int) -> str | None:
        text = self._repair(as_text(value))
        if len(text) > limit:
            raise CellError(f"over {limit:,} characters")
        return text or None

    def _repair(self, text: str) -> str:
        fixed, broken = repair(text)
        self.repaired |= broken
        return fixed
