"""Which messages to the Retriever are answered together: rankings of one kind, so that a slow one delays only those like it."""

from collections.abc import Hashable, Sequence

from matinee.index.cost import LIGHT, MOST
from matinee.recommend.queries import ExampleQuery, Query, scans
from serve.graph.messages import In, Rank, RetrieverMessage


def group_rankings(batch: Sequence[RetrieverMessage[object]]) -> list[list[int]]:
    """Places of the messages that are answered together: rankings of one kind, up to a limit of their cost; all others alone."""
    groups: list[list[int]] = []
    latest: dict[Hashable, list[int]] = {}
    left: dict[Hashable, int] = {}
    for place, message in enumerate(batch):
        key: Hashable = place
        cost = 0
        catalogue, rank = (message.catalogue, message.message) if isinstance(message, In) else (None, message)
        if isinstance(rank, Rank):
            key, cost = (catalogue, rank.fingerprint, _cost_kind(rank.query)), scans(rank.query)
        left[key] = left.get(key, 0) - cost
        if key not in latest or left[key] < 0:
            groups.append([])
            latest[key], left[key] = groups[-1], MOST - cost
        latest[key].append(place)
    return groups


def _cost_kind(query: Query) -> Hashable:
    """What can make a ranking slow. Those that have it in common wait for one another, others do not wait for them."""
    heavy = scans(query) > LIGHT
    if isinstance(query, ExampleQuery):
        by_title = any(example.title is not None for example in (*query.likes, *query.dislikes))
        return query.filter, query.debug, by_title, query.strategy, query.options.needs_candidates, heavy
    return query.filter, query.debug, query.exact, query.options.needs_candidates, heavy
