"""Collections, points and searches in the types of `qdrant_client`, and its answers back.

Pure translation: holds no client and does no I/O. Vector searches carry no condition against tombstones, which have no vectors.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, NotRequired, TypedDict, cast

from qdrant_client import models

from matinee.filters.attributes import AttributeType
from matinee.filters.conditions import AnyOf, Condition, During, Equal, HasId, Leaf, Missing, Near, Other, Within
from matinee.index.conditions import search_condition, translate
from matinee.index.qdrant.tenant import Tenant
from matinee.index.records import text_vector
from matinee.index.types import (
    BM25,
    SCORES,
    TEXT,
    TITLE,
    DenseQuery,
    EngineQuery,
    Hit,
    HybridQuery,
    Manifest,
    Payload,
    Point,
    PopularQuery,
    RecommendationQuery,
    Search,
    SparseQuery,
    StoredQuery,
)
from matinee.settings.index import IndexSettings
from matinee.vectors import Sparse

_MAX_POINTS, _MAX_BYTES = 256, 5_000_000

_SCHEMAS: dict[AttributeType, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    # The words, folded already: see the embedded engine.
    "text": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "boolean": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "geo": models.PayloadSchemaType.GEO,
}


def payload_indexes(manifest: Manifest) -> dict[str, models.PayloadSchemaType]:
    """Field of the payload -> type of its index."""
    return {key: _SCHEMAS[type] for key, type in manifest.payload_types().items()}


_QUANTIZATION: dict[str, models.QuantizationConfig | None] = {
    "none": None,
    # Leave out the outermost 1 % of the numbers, because they would stretch the scale of all others.
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}


class CollectionOptions(TypedDict):
    """Arguments of `create_collection`."""

    vectors_config: dict[str, models.VectorParams]
    sparse_vectors_config: dict[str, models.SparseVectorParams]
    hnsw_config: models.HnswConfigDiff
    optimizers_config: NotRequired[models.OptimizersConfigDiff]
    quantization_config: models.QuantizationConfig | None
    on_disk_payload: bool
    shard_number: int
    replication_factor: int
    write_consistency_factor: int
    strict_mode_config: models.StrictModeConfig | None


def collection(manifest: Manifest, settings: IndexSettings) -> CollectionOptions:
    """How the collection of a version is made."""
    disk = settings.on_disk
    sparse = models.SparseVectorParams(modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=disk))
    return {
        "vectors_config": {
            name: models.VectorParams(size=size, distance=models.Distance.COSINE, on_disk=disk)
            for name, size in manifest.dimensions.items()
        },
        "sparse_vectors_config": {BM25: sparse, TITLE: sparse},
        "hnsw_config": models.HnswConfigDiff(m=settings.m, ef_construct=settings.ef_construct, on_disk=disk),
        "quantization_config": _QUANTIZATION[settings.quantization],
        "on_disk_payload": settings.payload == "disk" or (disk and settings.payload == "auto"),
        "shard_number": settings.shards,
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency,
        # Without a condition on a field that has no index, no search reads all payloads.
        "strict_mode_config": models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False)
        if settings.strict
        else None,
    }


def batches(points: list[models.PointStruct], dimensions: Mapping[str, int]) -> list[list[models.PointStruct]]:
    """At most 256 points and about 5 MB each: a number takes some 20 bytes of JSON, an item's payload and sparse vectors some 6,000."""
    size = max(1, min(_MAX_POINTS, _MAX_BYTES // (20 * sum(dimensions.values()) + 6000)))
    return [points[start : start + size] for start in range(0, len(points), size)]


def engine_point(point: Point) -> models.PointStruct:
    vectors: dict[str, models.Vector] = {name: vector.tolist() for name, vector in point.dense.items()}
    vectors |= {name: _sparse(sparse) for name, sparse in point.sparse.items() if sparse.indices}
    return models.PointStruct(id=point.id, vector=vectors, payload={**point.payload})


def filter_of(condition: Condition | None) -> models.Filter | None:
    return translate(condition, _leaf, models.Filter)


def _leaf(condition: Leaf) -> models.Condition:
    match condition:
        case Equal(key, value):
            return models.FieldCondition(key=key, match=models.MatchValue(value=value))
        case AnyOf(key, values):
            return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        case Other(key, values):
            return models.FieldCondition(key=key, match=models.MatchExcept(**{"except": list(values)}))
        case Within(key, gte, lte, gt, lt):
            return models.FieldCondition(key=key, range=models.Range(gte=gte, lte=lte, gt=gt, lt=lt))
        case During(key):
            limits = {name: datetime.fromisoformat(limit) for name in ("gte", "lte", "gt", "lt") if (limit := getattr(condition, name))}
            return models.FieldCondition(key=key, range=models.DatetimeRange(**limits))
        case Near(key, lat, lon, radius_m):
            circle = models.GeoRadius(center=models.GeoPoint(lon=lon, lat=lat), radius=radius_m)
            return models.FieldCondition(key=key, geo_radius=circle)
        case Missing(key):
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        case HasId(ids):
            return models.HasIdCondition(has_id=[*ids])


def _approximate(settings: IndexSettings | None) -> models.SearchParams | None:
    if settings is None:
        return None
    if settings.quantization == "none":
        return models.SearchParams(hnsw_ef=settings.ef) if settings.ef else None
    ranked_again = models.QuantizationSearchParams(rescore=True, oversampling=settings.oversampling)
    return models.SearchParams(hnsw_ef=settings.ef, quantization=ranked_again)


def request(
    search: Search, manifest: Manifest, *, exact: bool, settings: IndexSettings | None, tenant: Tenant | None = None
) -> models.QueryRequest:
    """One search as the engine's request, with the engine's own defaults where there are no `settings`.

    A filter stands on each prefetch, so that fusion ranks only what may be answered.
    """
    condition = search_condition(search, manifest.declared)
    filter = filter_of(condition if tenant is None else tenant.condition(condition))
    payload = search.with_payload or (["popularity"] if isinstance(search.query, PopularQuery) else False)
    params = models.SearchParams(exact=True) if exact else _approximate(settings)
    fused = isinstance(search.query, HybridQuery)
    asked = _query(search.query, filter, params, tenant)
    return models.QueryRequest(
        query=asked.query,
        using=asked.using,
        prefetch=asked.prefetch,
        filter=None if fused else filter,
        params=None if fused else params,
        # Fused ranks tie in pairs, in an order that changes from call to call: one more lets `hits` decide the last pair too.
        limit=search.limit + fused,
        with_payload=payload if tenant is None else tenant.fields(payload),
        with_vector=[TEXT] if search.with_vectors else False,
    )


def hits(search: Search, answer: Iterable[models.ScoredPoint]) -> list[Hit]:
    ranked = [_hit(search, point) for point in answer]
    if isinstance(search.query, HybridQuery):
        ranked.sort(key=lambda hit: (-hit.score, hit.id))
    return ranked[: search.limit]


def _hit(search: Search, record: models.ScoredPoint) -> Hit:
    payload = cast(Payload, record.payload or {})
    score = float(payload["popularity"]) if isinstance(search.query, PopularQuery) else record.score
    return Hit(str(record.id), score, payload if search.with_payload else Payload(), text_vector(record.vector))


class _Asked(NamedTuple):
    """What a request ranks by: a query over the vectors `using`, or over the points of a prefetch."""

    query: models.Query
    using: str | None = None
    prefetch: list[models.Prefetch] | None = None


def _query(query: EngineQuery, filter: models.Filter | None, params: models.SearchParams | None, tenant: Tenant | None) -> _Asked:
    match query:
        case DenseQuery():
            return _Asked(models.NearestQuery(nearest=query.vector.tolist()), query.using)
        case StoredQuery(id):
            return _Asked(models.NearestQuery(nearest=id if tenant is None else tenant.id(id)), query.using)
        case SparseQuery():
            return _Asked(models.NearestQuery(nearest=_sparse(query.sparse)), query.using)
        case RecommendationQuery():
            return _Asked(_recommend(query), query.using)
        case PopularQuery():
            return _Asked(models.OrderByQuery(order_by=models.OrderBy(key="popularity", direction=models.Direction.DESC)))
    return _fuse(query, filter, params)


def _fuse(query: HybridQuery, filter: models.Filter | None, params: models.SearchParams | None) -> _Asked:
    near = models.NearestQuery(nearest=query.vector.tolist())
    terms = models.NearestQuery(nearest=_sparse(query.sparse))
    dense = models.Prefetch(query=near, using=query.using, limit=query.prefetch, filter=filter, params=params)
    sparse = models.Prefetch(query=terms, using=BM25, limit=query.prefetch, filter=filter, params=params)
    match query.fusion:
        case "rrf":
            rrf = models.Rrf(k=query.rrf_k, weights=list(query.weights))
            return _Asked(models.RrfQuery(rrf=rrf), prefetch=[dense, sparse])
        case "dbsf":
            return _Asked(models.FusionQuery(fusion=models.Fusion.DBSF), prefetch=[dense, sparse])
    weighted: list[models.Expression] = [models.MultExpression(mult=[w, score]) for w, score in zip(query.weights, SCORES, strict=True)]
    formula = models.FormulaQuery(formula=models.SumExpression(sum=weighted), defaults=dict.fromkeys(SCORES, 0.0))
    candidates = models.Prefetch(query=near, using=query.using, limit=2 * query.prefetch, prefetch=[dense, sparse])
    return _Asked(formula, prefetch=[candidates, sparse])


def _recommend(query: RecommendationQuery) -> models.RecommendQuery:
    strategies = {"average": models.RecommendStrategy.AVERAGE_VECTOR, "best": models.RecommendStrategy.BEST_SCORE}
    positive: list[models.VectorInput] = [vector.tolist() for vector in query.positive]
    negative: list[models.VectorInput] = [vector.tolist() for vector in query.negative]
    return models.RecommendQuery(recommend=models.RecommendInput(positive=positive, negative=negative, strategy=strategies[query.strategy]))


def _sparse(sparse: Sparse) -> models.SparseVector:
    return models.SparseVector(indices=sparse.indices, values=sparse.values)
