"""How much work a search gives the engine, in scans: a scan compares every item with one vector, or with one condition.

An estimate by the form of the search, before anything is read. On 4,000 items of 384 numbers a scan took 0.1 to 0.9 ms.
"""

from collections.abc import Sequence

from matinee.filters import ItemFilter
from matinee.index.types import RecommendationQuery, Search

LIGHT = 8
"""The most scans of a search that goes before others."""
MOST = 64
"""The most scans of searches that are put into one call. No other search runs until it ends; a search alone may be more."""
_HITS = 100
_IDS = 4
"""What costs about a scan: so many hits of a search, and so many items that are read by id with their vectors."""


def scans(examples: int, filter: ItemFilter, limit: int) -> int:
    """Those of one search: each item is compared with `examples` vectors."""
    return examples + filter.conditions + limit // _HITS


def reading(ids: int) -> int:
    """Those that reading items by id is worth."""
    return ids // _IDS


def is_heavy(searches: Sequence[Search]) -> bool:
    """Whether a call with these searches goes after others."""
    costs = [scans(_examples(search), search.filter, search.limit) for search in searches]
    return max(costs, default=0) > LIGHT or sum(costs) > MOST


def _examples(search: Search) -> int:
    query = search.query
    by_each = isinstance(query, RecommendationQuery) and query.strategy == "best"
    return len(query.positive) + len(query.negative) if isinstance(query, RecommendationQuery) and by_each else 1
