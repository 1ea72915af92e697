"""The index as the rest of Matinee sees it: points, searches, versions. One interface, two engines (`edge`, `qdrant`).

A *version* is one immutable-by-name build of a catalogue under one fingerprint; a *store* holds the versions of one catalogue and
knows which is current. Does not know models: vectors come in ready, with the fingerprint of the encoder that made them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypedDict, cast

from pydantic import BaseModel, ConfigDict, Field

from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute, Attributes, AttributeType, payload_key
from matinee.filters.conditions import Condition
from matinee.items import Item, ItemFacts
from matinee.settings.index import FactWeights, Recipe
from matinee.vectors import Sparse, Vector

TEXT, ITEM, BM25, TITLE = "text", "item", "bm25", "title"
"""Names of the vectors: dense of the embedded text, the same with facts beside it (`item_vector`), sparse BM25, sparse title trigrams."""

SCORES = ("$score[0]", "$score[1]")
"""What a formula of Qdrant's calls the scores of its first and second list."""

ScoreType = Literal["cosine", "bm25", "linear", "rrf", "dbsf", "best_score", "popularity", "title"]
OWN_FIELDS: dict[str, AttributeType] = {
    "origin": "keyword",
    "revision": "integer",
    "popularity": "float",
    "deleted": "boolean",
    "pending": "boolean",
    "titles": "keyword",
}
"""Fields of every payload that the index itself searches by, with their types."""

MADE_EMPTY = "api"
"""The source of a version that was made without items, for clients to write to."""

FacetCount = tuple[str | int | bool, int]
"""A value, and how many items have it."""

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_uid(id: str) -> bool:
    """Whether a text can be the id of a point."""
    return _UID.fullmatch(id) is not None


class Payload(TypedDict, total=False):
    """What a point has beside its vectors. A tombstone has only its origin, its revision, and `deleted`.

    `titles` are the folded forms of its title, where the version has them (`Manifest.titles`).
    `attributes` has the values of declared attributes (`matinee.filters.attributes`); those of `DEFAULT_ATTRIBUTES` stand at the top, where
    the item has them. `asked` is the revision when the import of the item was asked for.
    """

    origin: Literal["file", "api"]
    revision: int
    deleted: bool
    pending: bool
    enriched: bool
    asked: int
    item: ItemFacts
    title: str
    titles: list[str]
    kind: str
    genres: list[str]
    popularity: float
    year: int
    language: str
    rating: float
    votes: float
    description: str
    attributes: dict[str, object]


@dataclass(frozen=True, slots=True)
class Point:
    """What is written: `dense` maps a vector's name to float32[d] of unit length. A tombstone has no vectors at all."""

    id: str
    payload: Payload
    dense: Mapping[str, Vector] = field(default_factory=dict)
    sparse: Mapping[str, Sparse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DenseQuery:
    """Dense search: cosine to `vector` under the dense vector `using`."""

    vector: Vector
    using: str = TEXT


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """Dense search from a stored point: cosine to its own vector `using`, which is not read first. Never answers the point itself.

    Only for an index that `searches_by_id`. Raises an error of its own where there is no such point, or no such vector of it.
    """

    id: str
    using: str = TEXT


@dataclass(frozen=True, slots=True)
class SparseQuery:
    """Sparse search: BM25 (`using="bm25"`) or title trigrams (`using="title"`), IDF applied by the engine."""

    sparse: Sparse
    using: str = BM25


@dataclass(frozen=True, slots=True)
class HybridQuery:
    """Dense and sparse candidates (`prefetch` of each), fused by a weighted sum of cosine and BM25, by weighted reciprocal ranks (both with
    `weights`), or by scores that are normalised within the two lists.

    The sum knows every candidate's cosine, also of those that only the words found: a convex combination, up to its scale (Bruch et al.
    2023, "An Analysis of Fusion Functions for Hybrid Retrieval").
    """

    vector: Vector
    sparse: Sparse
    fusion: Literal["linear", "rrf", "dbsf"] = "rrf"
    rrf_k: int = 10
    weights: tuple[float, float] = (1.0, 1.0)
    prefetch: int = 100
    using: str = TEXT


@dataclass(frozen=True, slots=True)
class RecommendationQuery:
    """Recommend from examples (Qdrant's recommendation API): `average` searches with 2*mean(positive) - mean(negative), `best` scores each
    candidate by its nearest example, positive or negative."""

    positive: Sequence[Vector]
    negative: Sequence[Vector] = ()
    strategy: Literal["average", "best"] = "average"
    using: str = TEXT

    def __post_init__(self) -> None:
        if not len(self.positive) and (self.strategy == "average" or not len(self.negative)):
            raise ValueError(f"a recommendation by strategy {self.strategy!r} has no example to start from")


@dataclass(frozen=True, slots=True)
class PopularQuery:
    """No example at all: by the payload's `popularity`, highest first."""


EngineQuery = DenseQuery | StoredQuery | SparseQuery | HybridQuery | RecommendationQuery | PopularQuery
"""What an engine can be asked."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search: its query, who may be answered, and what comes back. `exact` scans instead of using the graph index.

    `titles` keeps items with one of these folded titles (`matinee.text.title_keys`), in a version that has them. `condition` is a part of
    the filter that no client wrote.
    """

    query: EngineQuery
    limit: int
    filter: ItemFilter = ItemFilter()
    titles: tuple[str, ...] = ()
    condition: Condition | None = None
    exclude: frozenset[str] = frozenset()
    exact: bool = False
    with_payload: bool = True
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Scroll:
    """One page of stored points, in the order of their ids, from the cursor `after` on.

    `since` keeps revisions above it, `origin` file or api ones. Tombstones come only where `deleted` is true, then beside the others.
    `pending` keeps those whose background work is not done. Raises `ValueError` for what was never a cursor.
    """

    limit: int
    after: str | None = None
    filter: ItemFilter = ItemFilter()
    since: int = 0
    origin: str | None = None
    deleted: bool = False
    pending: bool = False
    vectors: bool = False

    def __post_init__(self) -> None:
        if self.after is not None and not is_uid(self.after):
            raise ValueError(f"not a cursor of this index: {self.after!r}")


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search, or one stored point (score 0). `vector` is the dense `text` vector where it was asked for and exists."""

    id: str
    score: float
    payload: Payload = field(default_factory=Payload)
    vector: Vector | None = None


class Manifest(BaseModel):
    """What a version is made of. Written last: a version without one is an unfinished build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    catalogue: str
    fingerprint: str
    recipe: Recipe
    dimensions: dict[str, int] = Field(description="dense vector name -> d")
    facts: FactWeights | None = Field(None, description="what the `item` vector holds beside the text; None: there is none")
    count: int = 0
    created: str = ""
    source: str = ""
    revision: int = Field(0, description="API writes up to this revision are in the version")
    models: dict[str, str] = {}
    attributes: dict[str, Attribute] | None = Field(
        None,
        exclude_if=lambda attributes: attributes is None,
        description="what its items can be filtered, sorted and counted by; None: built before declarations (`DEFAULT_ATTRIBUTES`)",
    )
    release: int | None = Field(
        None, exclude_if=lambda release: release is None, description="revision of the Helm release whose Job built it"
    )
    titles: bool = Field(
        False, exclude_if=lambda titles: not titles, description="its points have their folded titles; false: built before there were any"
    )

    @property
    def declared(self) -> Attributes:
        """The attributes of its items."""
        return DEFAULT_ATTRIBUTES if self.attributes is None else self.attributes

    def payload_types(self) -> dict[str, AttributeType]:
        """Each field of a payload that gets an index, with its type."""
        return OWN_FIELDS | {payload_key(name, attribute): attribute.type for name, attribute in self.declared.items()}

    def payload_key(self, name: str) -> str:
        """Where a payload has the values of an attribute, or of a field of its own."""
        return payload_key(name, self.declared[name]) if name in self.declared else name


def new_version(fingerprint: str, recipe: Recipe) -> str:
    """A version's name: sortable by time, telling apart encoders and recipes at a glance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{fingerprint[:8]}-{recipe}"


def item_payload(item: Item, *, origin: Literal["file", "api"], revision: int, description: str | None = None) -> Payload:
    """An item's payload: the raw item whole, and beside it the fields that filters, facets and orders use.

    `pending` (`matinee.index.active`) marks what a background job has yet to describe or embed.
    """
    payload: Payload = {
        "item": item.facts(),
        "title": item.title,
        "kind": item.kind,
        "genres": list(item.genres),
        "popularity": item.numbers.get("votes", item.numbers.get("popularity", 0.0)),
        "origin": origin,
        "revision": revision,
        "deleted": False,
        "pending": False,
        "enriched": description is not None,
    }
    optional = {
        "year": item.year,
        "language": item.language,
        "rating": item.numbers.get("rating"),
        "votes": item.numbers.get("votes"),
        "description": description,
    }
    return payload | cast(Payload, {key: value for key, value in optional.items() if value is not None})


def tombstone(id: str, *, revision: int) -> Point:
    """What a deletion leaves: no vectors, so no search finds it; a re-ingest sees it and does not bring the item back."""
    return Point(id, {"origin": "api", "revision": revision, "deleted": True})
