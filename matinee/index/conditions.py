"""Which stored points a search, a count or a page may hold, in no engine's own types. Each engine translates the four conditions.

Does not decide what a filter means: `ItemFilter.matches` does, and a test compares every engine with it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from matinee.index.types import INTEGER_FIELDS, PopularQuery, Scroll, Search, is_uid
from matinee.items import ItemFilter, Range


@dataclass(frozen=True, slots=True)
class Equal:
    """The field has this value, or its list holds it."""

    key: str
    value: str | bool


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field has one of these values, or its list holds one."""

    key: str
    values: list[str]


@dataclass(frozen=True, slots=True)
class Within:
    """The number lies between the limits that are not None."""

    key: str
    gte: float | None = None
    lte: float | None = None
    gt: float | None = None


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is one of these."""

    ids: list[str]


Condition = Equal | AnyOf | Within | HasId
DELETED = Equal("deleted", True)


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of `must` hold, and none of `must_not`."""

    must: list[Condition]
    must_not: list[Condition]

    def __bool__(self) -> bool:
        return bool(self.must or self.must_not)


def valid_ids(ids: Iterable[str]) -> list[str]:
    """Those that can be ids at all: an engine refuses a whole call for one malformed id, where the answer is "no such item"."""
    return [id for id in ids if is_uid(id)]


def search_conditions(search: Search, *, exclude: bool = True) -> Conditions:
    """Those of a search. Vectors leave tombstones out by themselves, which have none; an order by popularity does not."""
    conditions = _filtered(search.filter)
    if exclude and (excluded := valid_ids(search.exclude)):
        conditions.must_not.append(HasId(excluded))
    if isinstance(search.query, PopularQuery):
        conditions.must_not.append(DELETED)
    return conditions


def live_conditions(filter: ItemFilter) -> Conditions:
    """Those of the live points that pass a filter."""
    conditions = _filtered(filter)
    conditions.must_not.append(DELETED)
    return conditions


def scroll_conditions(scroll: Scroll) -> Conditions:
    """Those of a page of stored points."""
    conditions = _filtered(scroll.filter) if scroll.deleted else live_conditions(scroll.filter)
    if scroll.since:
        conditions.must.append(Within("revision", gt=scroll.since))
    if scroll.pending:
        conditions.must.append(Equal("pending", True))
    if scroll.origin is not None:
        conditions.must.append(Equal("origin", scroll.origin))
    return conditions


def _filtered(filter: ItemFilter) -> Conditions:
    any_of = (("kind", filter.kind), ("genres", filter.genres), ("language", filter.language))
    must: list[Condition] = [AnyOf(key, list(values)) for key, values in any_of if values]
    must += [Equal("genres", genre) for genre in filter.genres_all]
    ranges = (("year", filter.year), ("rating", filter.rating), ("votes", filter.votes))
    must += [_within(key, limits) for key, limits in ranges if limits is not None and limits != Range()]
    return Conditions(must, [AnyOf("genres", list(filter.genres_none))] if filter.genres_none else [])


def _within(key: str, limits: Range) -> Within:
    low, high = limits.gte, limits.lte
    if key in INTEGER_FIELDS:
        # An integer index cuts a fractional limit towards zero, which would let 1999 pass "at least 1999.5".
        low, high = None if low is None else math.ceil(low), None if high is None else math.floor(high)
    return Within(key, gte=low, lte=high)
