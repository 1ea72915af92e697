"""What Matinee asks and stores, said in `qdrant_client`'s models: collections, points, filters, searches, and the answers back.

Pure translation: holds no client and does no I/O. Vector searches carry no condition against tombstones, which have no vectors.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from qdrant_client import models

from matinee.index.types import (
    BM25,
    BOOL_FIELDS,
    FLOAT_FIELDS,
    INTEGER_FIELDS,
    KEYWORD_FIELDS,
    SCORES,
    TEXT,
    TITLE,
    DenseQuery,
    Hit,
    HybridQuery,
    Manifest,
    Point,
    PopularQuery,
    RecommendationQuery,
    Search,
    SparseQuery,
)
from matinee.items import ItemFilter, Range
from matinee.settings.tree import IndexSettings
from matinee.vectors import Sparse, Vector

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_POINTS, _MAX_BYTES = 256, 5_000_000
_DELETED = models.FieldCondition(key="deleted", match=models.MatchValue(value=True))

PAYLOAD_INDEXES = {
    **dict.fromkeys(KEYWORD_FIELDS, models.PayloadSchemaType.KEYWORD),
    **dict.fromkeys(INTEGER_FIELDS, models.PayloadSchemaType.INTEGER),
    **dict.fromkeys(FLOAT_FIELDS, models.PayloadSchemaType.FLOAT),
    **dict.fromkeys(BOOL_FIELDS, models.PayloadSchemaType.BOOL),
}


def collection(manifest: Manifest, settings: IndexSettings) -> dict[str, Any]:
    """The arguments of `create_collection` for a version."""
    disk = settings.on_disk
    sparse = models.SparseVectorParams(modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=disk))
    return {
        "vectors_config": {
            name: models.VectorParams(size=size, distance=models.Distance.COSINE, on_disk=disk)
            for name, size in manifest.dimensions.items()
        },
        "sparse_vectors_config": {BM25: sparse, TITLE: sparse},
        "hnsw_config": models.HnswConfigDiff(on_disk=disk),
        "on_disk_payload": disk,
        "shard_number": settings.shards,
        "replication_factor": settings.replication_factor,
    }


def batches(points: list[models.PointStruct], dimensions: Mapping[str, int]) -> list[list[models.PointStruct]]:
    """At most 256 points and about 5 MB each: a number takes some 20 bytes of JSON, an item's payload and sparse vectors some 6,000."""
    size = max(1, min(_MAX_POINTS, _MAX_BYTES // (20 * sum(dimensions.values()) + 6000)))
    return [points[start : start + size] for start in range(0, len(points), size)]


def known_ids(ids: Iterable[str]) -> list[models.ExtendedPointId]:
    """Those that can be ids at all: the server refuses a whole call for one malformed id, where the answer is "no such item"."""
    return [id for id in ids if _UID.fullmatch(id)]


def point(given: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {name: vector.tolist() for name, vector in given.dense.items()}
    vectors |= {name: _sparse(sparse) for name, sparse in given.sparse.items() if sparse.indices}
    return models.PointStruct(id=given.id, vector=vectors, payload=given.payload)


def conditions(filter: ItemFilter) -> tuple[list[models.Condition], list[models.Condition]]:
    """The filter as (must, must not)."""
    must: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        for key, values in (("kind", filter.kind), ("genres", filter.genres), ("language", filter.language))
        if values
    ]
    must += [models.FieldCondition(key="genres", match=models.MatchValue(value=genre)) for genre in filter.genres_all]
    for key, limits in (("year", filter.year), ("rating", filter.rating), ("votes", filter.votes)):
        if limits is not None and limits != Range():
            must.append(models.FieldCondition(key=key, range=_range(limits, whole=key in INTEGER_FIELDS)))
    must_not: list[models.Condition] = []
    if filter.genres_none:
        must_not.append(models.FieldCondition(key="genres", match=models.MatchAny(any=list(filter.genres_none))))
    return must, must_not


def stored(
    filter: ItemFilter, *, since: int = 0, origin: str | None = None, deleted: bool = False, pending: bool = False
) -> models.Filter | None:
    """The condition over stored points, where there is no vector query that leaves tombstones out by itself."""
    must, must_not = conditions(filter)
    if not deleted:
        must_not.append(_DELETED)
    if since:
        must.append(models.FieldCondition(key="revision", range=models.Range(gt=since)))
    if pending:
        must.append(models.FieldCondition(key="pending", match=models.MatchValue(value=True)))
    if origin is not None:
        must.append(models.FieldCondition(key="origin", match=models.MatchValue(value=origin)))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def request(search: Search, *, exact: bool, ef: int | None = None) -> models.QueryRequest:
    """One search as the engine's request. A filter stands on each prefetch, so that fusion ranks only what may be answered."""
    must, must_not = conditions(search.filter)
    if excluded := known_ids(search.exclude):
        must_not.append(models.HasIdCondition(has_id=excluded))
    if isinstance(search.query, PopularQuery):
        must_not.append(_DELETED)
    filter = models.Filter(must=must, must_not=must_not) if must or must_not else None
    params = models.SearchParams(exact=True) if exact else models.SearchParams(hnsw_ef=ef) if ef else None
    fused = isinstance(search.query, HybridQuery)
    return models.QueryRequest(
        **_query(search.query, filter, params),
        filter=None if fused else filter,
        params=None if fused else params,
        # Fused ranks tie in pairs, in an order that changes from call to call: one more lets `hits` decide the last pair too.
        limit=search.limit + fused,
        with_payload=search.with_payload or (["popularity"] if isinstance(search.query, PopularQuery) else False),
        with_vector=[TEXT] if search.with_vectors else False,
    )


def hits(search: Search, answer: Iterable[models.ScoredPoint]) -> list[Hit]:
    found = [_hit(search, point) for point in answer]
    if isinstance(search.query, HybridQuery):
        found.sort(key=lambda hit: (-hit.score, hit.id))
    return found[: search.limit]


def _hit(search: Search, found: models.ScoredPoint) -> Hit:
    payload = found.payload or {}
    score = float(payload["popularity"]) if isinstance(search.query, PopularQuery) else found.score
    return Hit(str(found.id), score, payload if search.with_payload else {}, _text_vector(found.vector))


def record(found: models.Record) -> Hit:
    return Hit(str(found.id), 0.0, found.payload or {}, _text_vector(found.vector))


def whole(found: models.Record) -> Point:
    """A stored point with all its vectors, as it can be written again."""
    dense: dict[str, Vector] = {}
    sparse: dict[str, Sparse] = {}
    for name, value in (found.vector if isinstance(found.vector, Mapping) else {}).items():
        if isinstance(value, models.SparseVector):
            sparse[name] = Sparse(list(value.indices), list(value.values))
        else:
            dense[name] = np.asarray(value, dtype=np.float32)
    return Point(str(found.id), found.payload or {}, dense, sparse)


def _query(
    query: DenseQuery | SparseQuery | HybridQuery | RecommendationQuery | PopularQuery,
    filter: models.Filter | None,
    params: models.SearchParams | None,
) -> dict[str, Any]:
    match query:
        case DenseQuery():
            return {"query": models.NearestQuery(nearest=query.vector.tolist()), "using": query.using}
        case SparseQuery():
            return {"query": models.NearestQuery(nearest=_sparse(query.sparse)), "using": query.using}
        case RecommendationQuery():
            return {"query": _taste(query), "using": query.using}
        case PopularQuery():
            return {"query": models.OrderByQuery(order_by=models.OrderBy(key="popularity", direction=models.Direction.DESC))}
    return _fused(query, filter, params)


def _fused(query: HybridQuery, filter: models.Filter | None, params: models.SearchParams | None) -> dict[str, Any]:
    near = models.NearestQuery(nearest=query.vector.tolist())
    limits: dict[str, Any] = {"limit": query.prefetch, "filter": filter, "params": params}
    dense = models.Prefetch(query=near, using=query.using, **limits)
    sparse = models.Prefetch(query=models.NearestQuery(nearest=_sparse(query.sparse)), using=BM25, **limits)
    match query.fusion:
        case "rrf":
            rrf = models.Rrf(k=query.rrf_k, weights=list(query.weights))
            return {"query": models.RrfQuery(rrf=rrf), "prefetch": [dense, sparse]}
        case "dbsf":
            return {"query": models.FusionQuery(fusion=models.Fusion.DBSF), "prefetch": [dense, sparse]}
    weighted = [models.MultExpression(mult=[w, score]) for w, score in zip(query.weights, SCORES, strict=True)]
    formula = models.FormulaQuery(formula=models.SumExpression(sum=weighted), defaults=dict.fromkeys(SCORES, 0.0))
    candidates = models.Prefetch(query=near, using=query.using, limit=2 * query.prefetch, prefetch=[dense, sparse])
    return {"query": formula, "prefetch": [candidates, sparse]}


def _taste(query: RecommendationQuery) -> models.RecommendQuery:
    if not len(query.positive) and (query.strategy == "average" or not len(query.negative)):
        raise ValueError(f"a Taste of strategy {query.strategy!r} has no example to start from")
    strategies = {"average": models.RecommendStrategy.AVERAGE_VECTOR, "best": models.RecommendStrategy.BEST_SCORE}
    positive: list[Any] = [vector.tolist() for vector in query.positive]
    negative: list[Any] = [vector.tolist() for vector in query.negative]
    return models.RecommendQuery(recommend=models.RecommendInput(positive=positive, negative=negative, strategy=strategies[query.strategy]))


def _range(limits: Range, *, whole: bool) -> models.Range:
    # An integer index cuts a fractional limit towards zero, which would let 1999 pass "at least 1999.5".
    low, high = limits.gte, limits.lte
    if whole:
        low, high = None if low is None else math.ceil(low), None if high is None else math.floor(high)
    return models.Range(gte=low, lte=high)


def _sparse(sparse: Sparse) -> models.SparseVector:
    return models.SparseVector(indices=sparse.indices, values=sparse.values)


def _text_vector(vector: object) -> Vector | None:
    values = vector.get(TEXT) if isinstance(vector, Mapping) else None
    return None if values is None else np.asarray(values, dtype=np.float32)
