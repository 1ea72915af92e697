"""Why an answer is as it is: a search's candidates before filters and diversity, what each stage gave them, and what dropped them.

It asks the index again, stage by stage and without conditions: more searches, for `debug: true` only. Does not rank.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from matinee.filters.attributes import Attributes
from matinee.index.protocols import Index
from matinee.index.types import (
    DenseQuery,
    EngineQuery,
    Hit,
    HybridQuery,
    PopularQuery,
    RecommendationQuery,
    Search,
    SparseQuery,
    StoredQuery,
)
from matinee.recommend.results import ExplainedCandidate, Explanation

MAX_CANDIDATES = 100
_MAX_PREFETCH = 1000

_NAMES: dict[type, str] = {
    DenseQuery: "dense",
    StoredQuery: "dense",
    SparseQuery: "sparse",
    HybridQuery: "fused",
    RecommendationQuery: "taste",
    PopularQuery: "popularity",
}


async def explain(index: Index, search: Search, pool: Sequence[Hit], answered: Sequence[str], examples: frozenset[str]) -> Explanation:
    """How one answer came about. `pool` are the hits of `search`, `answered` the ids chosen of them, `examples` the ids it started from.

    `scores` are a stage's own, before any condition; `score` is that of the real search, absent where a condition dropped the item.
    """
    stages = list(_stages(search.query))
    unfiltered = [_drop_filter(search, query) for query in stages]
    # A filter may bring up an item from far down. Its scores come from the same stages with the filter.
    filtered = [_replace_query(search, query) for query in stages[:-1] if search.exclude or not search.filter.is_empty()]
    results = await index.search([*unfiltered, *filtered])
    names = [_NAMES[type(query)] for query in stages]
    scores: dict[str, dict[str, float]] = {}
    for name, hits in zip([*names, *names[: len(filtered)]], results, strict=True):
        for hit in hits:
            scores.setdefault(hit.id, {})[name] = round(hit.score, 6)
    candidates = _merge(results[len(stages) - 1], pool, *results[: len(stages) - 1])
    final = {hit.id: hit.score for hit in pool}
    rows: list[ExplainedCandidate] = []
    for hit in candidates:
        row: ExplainedCandidate = {"id": hit.id, "title": hit.payload.get("title"), "scores": scores.get(hit.id, {})}
        if hit.id in final:
            row["score"] = round(final[hit.id], 6)
        if hit.id in answered:
            row["rank"] = answered.index(hit.id) + 1
        else:
            row["dropped"] = _reasons(hit, search, examples, index.manifest.declared, in_pool=hit.id in final)
        rows.append(row)
    dropped = Counter(reason for row in rows for reason in row.get("dropped", ()))
    manifest = index.manifest
    return {
        "stages": names,
        "items": await index.count(),
        "items_passing_filter": await index.count(search.filter),
        "candidates_found": len(rows),
        "dropped": dict(dropped.most_common()),
        # An answered item is always listed, even if a filter brought it up from far down.
        "candidates": [*rows[:MAX_CANDIDATES], *(row for row in rows[MAX_CANDIDATES:] if "rank" in row)],
        "index": {"version": manifest.version, "fingerprint": manifest.fingerprint, "recipe": manifest.recipe, "models": manifest.models},
    }


def _stages(query: EngineQuery) -> Iterator[EngineQuery]:
    """What a query is made of, itself last."""
    if isinstance(query, HybridQuery):
        yield DenseQuery(query.vector, query.using)
        yield SparseQuery(query.sparse)
    yield query


def _drop_filter(search: Search, query: EngineQuery) -> Search:
    return Search(query, max(MAX_CANDIDATES, search.limit), exact=search.exact)


def _replace_query(search: Search, query: EngineQuery) -> Search:
    limit = min(_MAX_PREFETCH, search.query.prefetch) if isinstance(search.query, HybridQuery) else search.limit
    return replace(search, query=query, limit=limit, with_payload=False, with_vectors=False)


def _merge(*lists: Sequence[Hit]) -> list[Hit]:
    """Each item once, the first list's before the second's."""
    firsts: dict[str, Hit] = {}
    for hit in chain(*lists):
        firsts.setdefault(hit.id, hit)
    return list(firsts.values())


def _reasons(hit: Hit, search: Search, examples: frozenset[str], attributes: Attributes, *, in_pool: bool) -> list[str]:
    if hit.id in examples:
        return ["example"]
    if hit.id in search.exclude:
        return ["exclude"]
    return [f"filter.{name}" for name in search.filter.unmet(hit.payload, attributes)] or ["diversity" if in_pool else "rank"]
