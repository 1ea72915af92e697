"""Points and searches in the types of `qdrant_edge`, and its answers back.

Pure translation: opens no shard and does no I/O. Vector searches carry no condition against tombstones, which have no vectors.
"""

from __future__ import annotations  # several of the engine's type names exist in its stubs only

import os
from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
import qdrant_edge as edge

from matinee.filters.attributes import AttributeType
from matinee.filters.conditions import AnyOf, Condition, During, Equal, HasId, Leaf, Missing, Near, Other, Within
from matinee.index.conditions import scroll_condition, search_condition, translate
from matinee.index.records import text_vector
from matinee.index.types import (
    BM25,
    SCORES,
    TEXT,
    TITLE,
    DenseQuery,
    EngineQuery,
    HybridQuery,
    Manifest,
    Point,
    PopularQuery,
    RecommendationQuery,
    Scroll,
    Search,
    SparseQuery,
    StoredQuery,
)
from matinee.settings.index import IndexSettings
from matinee.vectors import Sparse, Vector

T = TypeVar("T")

_MAX_DROPPED = 100
# NumPy's, because the engine takes Python's `True` for the integer 1, which no boolean field ever equals (and reads every payload).
_BOOLEANS = {value: edge.MatchValue(np.bool_(value)) for value in (True, False)}  # type: ignore[arg-type]


def shard_config(manifest: Manifest, settings: IndexSettings, *, graphs: bool = False) -> edge.EdgeConfig:
    """The shard of a version, without graphs or with them for searches over more than `settings.graph_from` items.

    `indexing_threshold` 0 switches indexing off: an upsert stays searchable at once, and exactly.
    """
    return edge.EdgeConfig(
        vectors={name: _dense_params(size, settings, graphs=graphs) for name, size in manifest.dimensions.items()},
        sparse_vectors=_sparse_params(),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1 if graphs else 0, default_segment_number=1 if graphs else None),
        payload_memory=edge.Memory.Cached if settings.payload == "memory" else None,
    )


def search_config(segments: int) -> edge.EdgeConfig:
    """How a shard with so many segments is searched from now on; all else stays as it is.

    One thread searches a segment. Where there is one segment, it is the caller's: to hand it to a thread of the engine's would only take
    longer, and those that find nothing to do take CPU time, too.
    """
    return edge.EdgeConfig(sparse_vectors=_sparse_params(), max_search_threads=max(1, min(segments, os.cpu_count() or 1)))


def _sparse_params() -> dict[str, edge.EdgeSparseVectorParams]:
    return dict.fromkeys((BM25, TITLE), edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf))


def _dense_params(size: int, settings: IndexSettings, *, graphs: bool) -> edge.EdgeVectorParams:
    memory = edge.Memory.Cold if settings.on_disk else None
    if not graphs:
        return edge.EdgeVectorParams(size, edge.Distance.Cosine, memory=memory)
    # The engine counts in KB of float32.
    scanned = max(1, (settings.graph_from or 0) * size * 4 // 1024)
    graph = edge.HnswIndexConfig(settings.m, settings.ef_construct, full_scan_threshold=scanned)
    return edge.EdgeVectorParams(
        size, edge.Distance.Cosine, hnsw_config=graph, quantization_config=_quantization(settings.quantization), memory=memory
    )


def _quantization(kind: str) -> edge.QuantizationConfigType | None:
    pinned = edge.Memory.Pinned
    match kind:
        case "scalar":
            # Leave out the outermost 1 % of the numbers, because they would stretch the scale of all others.
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=pinned)
        case "binary":
            return edge.BinaryQuantizationConfig(memory=pinned)
        case "product":
            return edge.ProductQuantizationConfig(edge.CompressionRatio.X16, memory=pinned)
    return None


_SCHEMAS: dict[AttributeType, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    # The words, folded already, because each engine's tokeniser would fold them differently.
    "text": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "boolean": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "geo": edge.PayloadSchemaType.Geo,
}


def payload_indexes(manifest: Manifest) -> list[edge.UpdateOperation]:
    return [edge.UpdateOperation.create_field_index(key, _SCHEMAS[type]) for key, type in manifest.payload_types().items()]


def engine_point(point: Point) -> edge.Point:
    vectors: dict[str, edge.NamedVector] = {name: vector.tolist() for name, vector in point.dense.items()}
    vectors |= {name: _sparse(sparse) for name, sparse in point.sparse.items() if sparse.indices}
    return edge.Point(point.id, vectors, {**point.payload})


def filter_of(condition: Condition | None) -> edge.Filter | None:
    return translate(condition, _leaf, edge.Filter)


def _leaf(condition: Leaf) -> edge.ConditionType:
    match condition:
        case Equal(key, value):
            return edge.FieldCondition(key, match=_BOOLEANS[value] if isinstance(value, bool) else edge.MatchValue(value))
        case AnyOf(key, values):
            return edge.FieldCondition(key, match=edge.MatchAny(list(values)))  # type: ignore[arg-type]
        case Other(key, values):
            return edge.FieldCondition(key, match=edge.MatchExcept(list(values)))  # type: ignore[arg-type]
        case Within(key, gte, lte, gt, lt):
            return edge.FieldCondition(key, range=edge.RangeFloat(gte=gte, lte=lte, gt=gt, lt=lt))
        case During(key, gte, lte, gt, lt):
            return edge.FieldCondition(key, range=edge.RangeDateTime(gte=gte, lte=lte, gt=gt, lt=lt))
        case Near(key, lat, lon, radius_m):
            return edge.FieldCondition(key, geo_radius=edge.GeoRadius(edge.GeoPoint(lon, lat), radius_m))
        case Missing(key):
            return edge.IsEmptyCondition(key)
        case HasId(ids):
            return edge.HasIdCondition({*ids})


def page(scroll: Scroll, manifest: Manifest) -> edge.ScrollRequest:
    return edge.ScrollRequest(
        offset=scroll.after,
        limit=scroll.limit,
        filter=filter_of(scroll_condition(scroll, manifest.declared)),
        with_payload=True,
        with_vector=[TEXT] if scroll.vectors else False,
    )


def requests(searches: Sequence[Search], manifest: Manifest, settings: IndexSettings) -> list[edge.QueryRequest]:
    """Searches as the engine's requests of one batch.

    Dense lists that follow one another in a batch share one pass over the vectors. So every other hybrid search begins with its sparse
    list: the dense list at its end is followed by that of the next search.
    """
    return [_request(search, manifest, settings, sparse_first=place % 2 == 1) for place, search in enumerate(searches, 1)]


def _request(search: Search, manifest: Manifest, settings: IndexSettings, *, sparse_first: bool) -> edge.QueryRequest:
    """One search as the engine's request. Each prefetch has the filter, so that fusion ranks only items that pass it."""
    fused = isinstance(search.query, HybridQuery)
    # Asking for more and dropping the excluded is the same answer as a filter on ids, for 0.2 ms less at 10,000 points; not where
    # lists are fused, since there an excluded item takes up a rank.
    dropped = 0 if fused or len(search.exclude) > _MAX_DROPPED else len(search.exclude)
    filter = filter_of(search_condition(search, manifest.declared, exclude=not dropped))
    ranked_again = edge.QuantizationSearchParams(rescore=True, oversampling=settings.oversampling)
    quantization = None if settings.quantization == "none" else ranked_again
    params = edge.SearchParams(hnsw_ef=settings.ef, exact=search.exact, quantization=quantization)
    query, prefetches = _query(search.query, filter, params, sparse_first=sparse_first)
    return edge.QueryRequest(
        # Fused ranks tie in pairs, in an order that changes from call to call: one more lets `hits` decide the last pair too.
        limit=search.limit + dropped + fused,
        query=query,
        prefetches=prefetches,
        filter=None if prefetches else filter,
        params=None if prefetches else params,
        # Without payloads: the index adds them from its own copy.
        with_payload=False,
        with_vector=[TEXT] if search.with_vectors else False,
    )


def scored(search: Search, answer: Sequence[edge.ScoredPoint]) -> list[tuple[str, float, Vector | None]]:
    """Ids, scores and, where they were asked for, vectors of an answer to one of `requests`."""
    ordered = isinstance(search.query, PopularQuery)
    # Each field that is read of the engine's objects is converted anew.
    found = [
        (id, float(record.order_value or 0) if ordered else record.score, text_vector(record.vector) if search.with_vectors else None)
        for record in answer
        if (id := str(record.id)) not in search.exclude
    ]
    if isinstance(search.query, HybridQuery):
        found.sort(key=lambda one: (-one[1], one[0]))
    return found[: search.limit]


def _query(
    query: EngineQuery,
    filter: edge.Filter | None,
    params: edge.SearchParams,
    *,
    sparse_first: bool,
) -> tuple[edge.ScoringQueryType, list[edge.Prefetch] | None]:
    match query:
        case DenseQuery():
            return edge.Query.Nearest(query.vector.tolist(), query.using), None
        case SparseQuery():
            return edge.Query.Nearest(_sparse(query.sparse), query.using), None
        case RecommendationQuery():
            return _recommend(query), None
        case PopularQuery():
            return edge.OrderBy("popularity", edge.Direction.Desc), None
        case StoredQuery():
            raise TypeError("the embedded engine takes vectors only: `EdgeIndex.searches_by_id`")
    return _fuse(query, filter, params, sparse_first=sparse_first)


def _fuse(
    query: HybridQuery, filter: edge.Filter | None, params: edge.SearchParams, *, sparse_first: bool
) -> tuple[edge.ScoringQueryType, list[edge.Prefetch]]:
    """The order of the two lists changes no score: two numbers have one sum."""
    near = edge.Query.Nearest(query.vector.tolist(), query.using)
    dense = edge.Prefetch(query.prefetch, query=near, filter=filter, params=params)
    sparse = edge.Prefetch(query.prefetch, query=edge.Query.Nearest(_sparse(query.sparse), BM25), filter=filter)

    def ordered(first: T, second: T) -> list[T]:
        return [second, first] if sparse_first else [first, second]

    # The engine's stubs do not say that these are fusions.
    match query.fusion:
        case "rrf":
            return cast(edge.Fusion, edge.Fusion.Rrf(query.rrf_k, ordered(*query.weights))), ordered(dense, sparse)
        case "dbsf":
            return cast(edge.Fusion, edge.Fusion.Dbsf()), ordered(dense, sparse)
    scores = [edge.Expression.Variable(score) for score in SCORES]
    weighted = [
        edge.Expression.Mult([edge.Expression.Constant(weight), score])
        for weight, score in zip(ordered(*query.weights), scores, strict=True)
    ]
    candidates = edge.Prefetch(2 * query.prefetch, query=near, prefetches=ordered(dense, sparse))
    return edge.Formula(edge.Expression.Sum(weighted), dict.fromkeys(SCORES, 0.0)), ordered(candidates, sparse)


def _recommend(query: RecommendationQuery) -> edge.Query:
    if query.strategy == "best":
        examples = edge.RecommendQuery([v.tolist() for v in query.positive], [v.tolist() for v in query.negative])
        return edge.Query.RecommendBestScore(examples, query.using)
    # The server computes this itself (`average_vector`); the embedded engine has only the search that it ends in.
    target = np.mean(query.positive, axis=0)
    if len(query.negative):
        target = 2 * target - np.mean(query.negative, axis=0)
    return edge.Query.Nearest(target.tolist(), query.using)


def _sparse(sparse: Sparse) -> edge.SparseVector:
    return edge.SparseVector(sparse.indices, sparse.values)
