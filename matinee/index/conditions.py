"""Which stored points a search, a count or a page may hold, as one condition. Each engine translates it.

Does not decide what a filter means: `ItemFilter` and `conditions.holds` do, and a test compares every engine with them.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from matinee.filters import ItemFilter
from matinee.filters.attributes import Attributes
from matinee.filters.conditions import All, AnyOf, Condition, Equal, HasId, Leaf, Not, Some, Within
from matinee.index.types import PopularQuery, Scroll, Search, is_uid

Filter = TypeVar("Filter")

NOT_DELETED = Not(Equal("deleted", True))


def valid_ids(ids: Iterable[str]) -> list[str]:
    """The well-formed ids. For one malformed id an engine would refuse the whole call, but the answer is "no such item"."""
    return [id for id in ids if is_uid(id)]


def search_condition(search: Search, attributes: Attributes, *, exclude: bool = True) -> Condition | None:
    """The condition of a search. Tombstones have no vectors, so only an order by popularity has to exclude them."""
    parts = [search.filter.condition(attributes)]
    if search.condition is not None:
        parts.append(search.condition)
    if search.titles:
        parts.append(AnyOf("titles", search.titles))
    if exclude and (excluded := valid_ids(search.exclude)):
        parts.append(Not(HasId(tuple(excluded))))
    if isinstance(search.query, PopularQuery):
        parts.append(NOT_DELETED)
    return _all(parts)


def not_deleted_condition(filter: ItemFilter, attributes: Attributes) -> Condition:
    """That of the points that pass a filter and are not deleted."""
    return _all([filter.condition(attributes), NOT_DELETED]) or NOT_DELETED


def scroll_condition(scroll: Scroll, attributes: Attributes) -> Condition | None:
    """That of a page of stored points."""
    parts = [scroll.filter.condition(attributes), None if scroll.deleted else NOT_DELETED]
    if scroll.since:
        parts.append(Within("revision", gt=scroll.since))
    if scroll.pending:
        parts.append(Equal("pending", True))
    if scroll.origin is not None:
        parts.append(Equal("origin", scroll.origin))
    return _all(parts)


def _all(parts: Iterable[Condition | None]) -> Condition | None:
    conditions = tuple(part for part in parts if part is not None)
    return None if not conditions else conditions[0] if len(conditions) == 1 else All(conditions)


def translate(  # type: ignore[explicit-any]  # `filter` takes lists of the engine's own conditions.
    condition: Condition | None, leaf: Callable[[Leaf], object], filter: Callable[..., Filter]
) -> Filter | None:
    """A condition as an engine's filter. `leaf` translates the condition on one field, `filter` is the engine's class."""

    def part(one: Condition) -> object:
        return group(one) if isinstance(one, All | Some | Not) else leaf(one)

    def group(one: All | Some | Not) -> Filter:
        match one:
            case All(of):
                negated = [part(other.of) for other in of if isinstance(other, Not)]
                return filter(must=[part(other) for other in of if not isinstance(other, Not)], must_not=negated)
            case Some(of):
                return filter(should=[part(other) for other in of])
            case Not(of):
                return filter(must_not=[part(of)])

    if condition is None:
        return None
    return group(condition if isinstance(condition, All | Some | Not) else All((condition,)))
