"""Groups of a ranked list: its hits by one attribute's values, and the further searches for what the best candidates lack of them.

A round is one search. It leaves out groups that are there already, or keeps to those with too few items. Qdrant's own groups are made in
the same way, but they are not used: they put an item into a group of each of its values, know neither pages nor booleans, and mix fused
scores of lists that can't be compared. So both engines answer alike. Does not rank: a later round's hits stand behind earlier ones.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

from matinee.filters.attributes import Attributes, payload_key, payload_values
from matinee.filters.conditions import Condition, Equal, Missing, Not, Other, any_of, holds
from matinee.index.protocols import Index
from matinee.index.types import Hit, HybridQuery, Search
from matinee.recommend.options import RankingOptions, sort_hits

MAX_ROUNDS = 5
"""How many further searches may look for groups, and how many for the items of the groups on a page."""

GroupValue = str | int
Rounds = Generator[Search, Sequence[Hit] | None, list[Hit]]
"""Yields a search at a time and is sent its hits. Returns all hits that belong to the groups."""


def group_hits(hits: Iterable[Hit], options: RankingOptions, attributes: Attributes) -> list[list[Hit]]:
    """Groups of hits, the best first; without `group_by`, each hit is one. An item without the attribute is in none."""
    if options.group_by is None:
        return [[hit] for hit in hits]
    groups: dict[GroupValue, list[Hit]] = {}
    for hit in hits:
        if (value := group_of(hit, options, attributes)) is not None:
            groups.setdefault(value, []).append(hit)
    return [group[: options.group_limit] for group in groups.values()]


def group_of(hit: Hit, options: RankingOptions, attributes: Attributes) -> GroupValue | None:
    """The value that a hit is grouped by: its first."""
    name = options.group_by
    values: list[GroupValue] = [] if name is None else payload_values(hit.payload, payload_key(name, attributes[name]))
    return values[0] if values else None


async def run_rounds(index: Index, runs: Sequence[Rounds]) -> list[list[Hit]]:
    """What each run returns. The index is asked once a round for all of them."""
    returned: list[list[Hit]] = [[] for _ in runs]
    answers: dict[int, list[Hit] | None] = dict.fromkeys(range(len(runs)))
    while answers:
        searches: dict[int, Search] = {}
        for place, hits in answers.items():
            try:
                searches[place] = runs[place].send(hits)
            except StopIteration as done:
                returned[place] = done.value
        answers = dict(zip(searches, await index.search([*searches.values()]), strict=True)) if searches else {}
    return returned


@dataclass(frozen=True, slots=True)
class GroupSearch:
    """The groups that `search` has, whose options have a `group_by`. As many hits as its limit are a round."""

    search: Search
    options: RankingOptions
    attributes: Attributes

    def further_hits(self, hits: Sequence[Hit], k: int) -> Rounds:
        """What a page of `k` groups lacks, beside the `hits` of the search itself."""
        ranked = self._rank(hits)
        query = self.search.query
        # Ranks and normalised scores exist only within the lists that they come from.
        has_one_scale = not isinstance(query, HybridQuery) or query.fusion == "linear"
        if len(ranked) < self.search.limit or self.options.sort or not has_one_scale:
            return []
        start = self.options.offset or 0
        new = yield from self._find_groups(ranked, start + k)
        return new + (yield from self._fill_groups([*ranked, *new], start, k))

    def _find_groups(self, ranked: Sequence[Hit], count: int) -> Rounds:
        """Hits of other groups than those of `ranked`, until there are `count` groups."""
        known = {value: None for hit in ranked if (value := self._group_of(hit)) is not None}
        seen, new = [*ranked], list[Hit]()
        for _ in range(MAX_ROUNDS):
            condition = self._others([*known])
            if len(known) >= count or condition is None:
                break
            found = self._rank((yield self._narrow(condition, seen)))
            seen += found
            # An item with several values may have a first one that is known.
            fresh = {hit.id: value for hit in found if (value := self._group_of(hit)) is not None and value not in known}
            new += [hit for hit in found if hit.id in fresh]
            known |= dict.fromkeys(fresh.values())
            if len(found) < self.search.limit:
                break
        return new

    def _fill_groups(self, hits: Sequence[Hit], start: int, k: int) -> Rounds:
        """Hits of those groups of the page that have fewer than the limit."""
        page = group_hits(hits, self.options, self.attributes)[start : start + k]
        free = {self._group_of(group[0]): self.options.group_limit - len(group) for group in page}
        lacking = {value: count for value, count in free.items() if value is not None and count}
        seen, new = [*hits], list[Hit]()
        for _ in range(MAX_ROUNDS):
            if not lacking:
                break
            found = self._rank((yield self._narrow(any_of(self._key, [*lacking]), seen)))
            seen += found
            for hit in found:
                value = self._group_of(hit)
                if value is not None and lacking.get(value):
                    new.append(hit)
                    lacking[value] -= 1
            lacking = {value: count for value, count in lacking.items() if count}
            if len(found) < self.search.limit:
                break
        return new

    @property
    def _key(self) -> str:
        name = self.options.group_by or ""
        return payload_key(name, self.attributes[name])

    def _group_of(self, hit: Hit) -> GroupValue | None:
        return group_of(hit, self.options, self.attributes)

    def _rank(self, hits: Sequence[Hit] | None) -> list[Hit]:
        return sort_hits(hits or (), self.options, self.attributes)

    def _narrow(self, condition: Condition, seen: Iterable[Hit]) -> Search:
        """The search among the items that meet the condition, without those that were seen."""
        again = {hit.id for hit in seen if holds(condition, hit.payload)}
        return replace(self.search, condition=condition, exclude=self.search.exclude | again)

    def _others(self, values: Sequence[GroupValue]) -> Condition | None:
        """That an item has a value that is none of these; None where there can be no other."""
        if not values:
            return Not(Missing(self._key))
        if isinstance(values[0], bool):
            return None if len(values) > 1 else Equal(self._key, not values[0])
        return Other(self._key, tuple(values))
