"""What a request may ask of its ranked list beside likes, text and filter: paging, sorting, groups, a least score, counts, fields.

Pure functions on candidates; the least score comes first, then sorting, groups (`groups`), and the page. Does not search.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matinee.errors import UnknownAttributeError
from matinee.filters.attributes import SORTABLE, Attributes, describe, facet_names, payload_key, payload_values
from matinee.index.types import FacetCount, Hit

MAX_CANDIDATES = 1000
"""How many of the best items are paged through, sorted and counted; also the most items of an answer."""
MAX_FACET_VALUES = 50
SCORE_DIGITS = 6
"""Of a score in a response."""

Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """`offset`: how many of the list are left out at its beginning; None: no paging. `sort` has attributes with a direction, the first
    counts most. `group_by`: at most `group_limit` items of one value, which stand together. `facets`: attributes to count.

    `fields`: the parts of an item that come back, as `title` or `extra.size`; None: all.
    """

    offset: int | None = None
    min_score: float | None = None
    sort: tuple[tuple[str, Direction], ...] = ()
    group_by: str | None = None
    group_limit: int = 1
    facets: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None

    @property
    def needs_candidates(self) -> bool:
        """Whether the best `MAX_CANDIDATES` are needed, however few come back."""
        return self.offset is not None or bool(self.sort or self.group_by or self.facets)

    @property
    def reads_attributes(self) -> bool:
        """Whether the payloads of all candidates are read."""
        return bool(self.sort or self.group_by or self.facets)

    def check(self, attributes: Attributes) -> None:
        """Raises `UnknownAttributeError` for attributes that can't be sorted, grouped or counted by."""
        for name, _ in self.sort:
            if name not in attributes or attributes[name].type not in SORTABLE:
                usable = {name: one for name, one in attributes.items() if one.type in SORTABLE}
                raise UnknownAttributeError(f"sort: {name[:100]!r} can't be sorted by; the attributes that can are: {describe(usable)}")
        if self.facets:
            facet_names(attributes, self.facets)
        if self.group_by is not None:
            facet_names(attributes, (self.group_by,), what="group_by")


def sort_hits(hits: Sequence[Hit], options: RankingOptions, attributes: Attributes) -> list[Hit]:
    """The candidates with at least `min_score`, in an order that is the same in every call."""
    # As responses show scores, so that one of them can be the limit of the next request.
    kept = [hit for hit in hits if options.min_score is None or round(hit.score, SCORE_DIGITS) >= options.min_score]
    if options.needs_candidates:
        kept.sort(key=lambda hit: (-hit.score, hit.id))
    # The last one first, because sorting keeps the order of equals.
    for name, direction in reversed(options.sort):
        key = payload_key(name, attributes[name])
        best = min if direction == "asc" else max
        valued = [(best(values), hit) for hit in kept if (values := payload_values(hit.payload, key))]
        without = [hit for hit in kept if not payload_values(hit.payload, key)]
        valued.sort(key=lambda pair: pair[0], reverse=direction == "desc")
        kept = [hit for _, hit in valued] + without
    return kept


def count_facets(hits: Sequence[Hit], options: RankingOptions, attributes: Attributes) -> dict[str, list[FacetCount]]:
    """The most frequent values of each of `facets` among the candidates."""
    counts: dict[str, list[FacetCount]] = {}
    for name in options.facets:
        key = payload_key(name, attributes[name])
        seen = Counter(value for hit in hits for value in dict.fromkeys(payload_values(hit.payload, key)))
        counts[name] = sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_FACET_VALUES]
    return counts


def select_fields(facts: Mapping[str, object], fields: Sequence[str] | None) -> Mapping[str, object]:
    """The parts of an item that were asked for, those that it has."""
    if fields is None:
        return facts
    item: dict[str, object] = {}
    for field in fields:
        group, _, name = field.partition(".")
        whole = facts.get(group)
        if not name and group in facts:
            item[group] = whole
        elif name and isinstance(whole, Mapping) and name in whole:
            part = item.setdefault(group, {})
            if isinstance(part, dict) and part is not whole:
                part[name] = whole[name]
    return item
