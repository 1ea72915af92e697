"""The index as the rest of Matinee sees it: points, searches, versions. One interface, two engines (`index_edge`, `index_qdrant`).

A *version* is one immutable-by-name build of a catalogue under one fingerprint; a *store* holds the versions of one catalogue and
knows which is current. Does not know models: vectors come in ready, with the fingerprint of the encoder that made them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from matinee.items import Item, ItemFilter
from matinee.settings.tree import FactWeights, Recipe, Settings

TEXT, ITEM, BM25, TITLE = "text", "item", "bm25", "title"
"""Names of the vectors: dense of the embedded text, the same with facts beside it (`likeness`), sparse BM25, sparse title trigrams."""

SCORES = ("$score[0]", "$score[1]")
"""What a formula of Qdrant's calls the scores of its first and second list."""

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
ScoreType = Literal["cosine", "bm25", "linear", "rrf", "dbsf", "best_score", "popularity", "title"]
KEYWORD_FIELDS = ("kind", "genres", "language", "origin")
INTEGER_FIELDS = ("year", "revision")
FLOAT_FIELDS = ("rating", "votes", "popularity")
BOOL_FIELDS = ("deleted", "pending")


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector: `values[i]` at dimension `indices[i]`; indices are unique."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Point:
    """What is written: `dense` maps a vector's name to float32[d] of unit length. A tombstone has no vectors at all."""

    id: str
    payload: dict[str, Any]
    dense: Mapping[str, Vector] = field(default_factory=dict)
    sparse: Mapping[str, Sparse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Nearest:
    """Dense search: cosine to `vector` under the dense vector `using`."""

    vector: Vector
    using: str = TEXT


@dataclass(frozen=True, slots=True)
class Lexical:
    """Sparse search: BM25 (`using="bm25"`) or title trigrams (`using="title"`), IDF applied by the engine."""

    sparse: Sparse
    using: str = BM25


@dataclass(frozen=True, slots=True)
class Hybrid:
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
class Taste:
    """Recommend from examples (Qdrant's recommendation API): `average` searches with 2*mean(positive) - mean(negative), `best` scores each
    candidate by its nearest example, positive or negative."""

    positive: Sequence[Vector]
    negative: Sequence[Vector] = ()
    strategy: Literal["average", "best"] = "average"
    using: str = TEXT


@dataclass(frozen=True, slots=True)
class Popular:
    """No example at all: by the payload's `popularity`, highest first."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search: its query, who may be answered, and what comes back. `exact` scans instead of using the graph index."""

    query: Nearest | Lexical | Hybrid | Taste | Popular
    limit: int
    filter: ItemFilter = ItemFilter()
    exclude: frozenset[str] = frozenset()
    exact: bool = False
    with_payload: bool = True
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search, or one stored point (score 0). `vector` is the dense `text` vector where it was asked for and exists."""

    id: str
    score: float
    payload: dict[str, Any] = field(default_factory=dict)
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


class Index(Protocol):
    """One open version. All calls are coroutines, so that neither engine blocks an event loop.

    Raises `IndexUnavailableError` when the engine can't answer in time, `IndexLockedError` when another process holds the path.
    """

    manifest: Manifest

    @property
    def approximate(self) -> bool:
        """Whether a search may be answered from a graph of vectors, so that `exact` can make a difference."""

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """The hits of each search, best first; deleted points never appear."""
        ...

    async def retrieve(self, ids: Sequence[str], *, vectors: bool = False) -> list[Hit | None]:
        """The stored points, tombstones included, in the order of `ids`; None where there is none."""
        ...

    async def scroll(
        self,
        *,
        limit: int,
        after: str | None = None,
        filter: ItemFilter = ItemFilter(),
        since: int = 0,
        origin: str | None = None,
        deleted: bool = False,
        pending: bool = False,
        vectors: bool = False,
    ) -> tuple[list[Hit], str | None]:
        """A page of points by id, and the cursor of the next page (None at the end).

        `since` keeps revisions above it, `origin` file or api ones; tombstones only where `deleted` is true (then beside the others);
        `pending` keeps those whose background work is not done.
        """
        ...

    async def points(self, ids: Sequence[str]) -> list[Point]:
        """Whole points with all their vectors, to be copied into another version; unknown ids are left out."""
        ...

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same id; durable when it returns."""
        ...

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        """How many live (not deleted) points pass the filter, exactly."""
        ...

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50) -> list[tuple[str, int]]:
        """The most frequent values of a keyword field (`kind`, `genres`, `language`) with their counts, deleted points left out."""
        ...

    async def max_revision(self) -> int:
        """The highest revision of any point, 0 when empty."""
        ...

    async def close(self) -> None: ...


class IndexStore(Protocol):
    """The versions of one catalogue."""

    async def versions(self) -> list[Manifest]:
        """All finished versions, newest first."""
        ...

    async def current(self) -> Manifest | None: ...

    async def previous(self) -> Manifest | None:
        """The version that `rollback` would go back to."""
        ...

    async def create(self, manifest: Manifest) -> Index:
        """A new, empty, writable version aside; the leftovers of an earlier unfinished build of that name are removed."""
        ...

    async def finish(self, manifest: Manifest) -> None:
        """Mark a build as complete. The index must have been closed (embedded engine)."""
        ...

    async def open(self, version: str) -> Index:
        """Raises `IndexAbsentError` for a version that does not exist or is unfinished."""
        ...

    async def switch(self, version: str) -> None:
        """Make a finished version current in one step; the one before is kept for rollback."""
        ...

    async def rollback(self) -> Manifest:
        """Make the previous version current again; raises `IndexAbsentError` when there is none."""
        ...

    async def prune(self, keep: int) -> list[str]:
        """Delete unfinished builds and all but the newest `keep` versions; the current and the previous one always stay."""
        ...

    async def close(self) -> None: ...


def open_store(settings: Settings, *, client: Any = None) -> IndexStore:
    """The store of the configured engine. `client` replaces the Qdrant client (tests: `AsyncQdrantClient(":memory:")`)."""
    if settings.index.engine == "edge" and client is None:
        from matinee.index.edge.store import EdgeStore

        return EdgeStore(settings.index_dir, settings.catalogue, settings.index)
    from matinee.index.qdrant.index import QdrantStore

    return QdrantStore(settings.index, settings.catalogue, client=client)


def new_version(fingerprint: str, recipe: Recipe) -> str:
    """A version's name: sortable by time, telling apart encoders and recipes at a glance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{fingerprint[:8]}-{recipe}"


def item_payload(item: Item, *, origin: Literal["file", "api"], revision: int, description: str | None = None) -> dict[str, Any]:
    """The payload of a live item: the raw item whole, and beside it the fields that filters, facets and orders use.

    `pending` (`matinee.index.active`) marks what a background job has yet to describe or embed.
    """
    payload: dict[str, Any] = {
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
    return payload | {key: value for key, value in optional.items() if value is not None}


def tombstone(id: str, *, revision: int) -> Point:
    """What a deletion leaves: no vectors, so no search finds it; a re-ingest sees it and does not bring the item back."""
    return Point(id, {"origin": "api", "revision": revision, "deleted": True})


def live(hits: Iterable[Hit | None]) -> list[Hit]:
    return [hit for hit in hits if hit is not None and not hit.payload.get("deleted")]
