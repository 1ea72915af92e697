"""What travels over the hops: the units of work of each deployment and their results. Plain data, no behaviour."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from matinee.index.types import Point
from matinee.items import Item, ItemFilter
from matinee.models.embedder import Kind
from matinee.recommend.recommender import ExampleQuery, TextQuery
from matinee.settings.tree import Recipe


@dataclass(frozen=True, slots=True)
class Embed:
    """Texts to embed; the result is an `Embedded`."""

    texts: tuple[str, ...]
    kind: Kind = "query"


@dataclass(frozen=True, slots=True)
class Embedded:
    """float32[n, d], and the fingerprint of the encoder that made them."""

    fingerprint: str
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Describe:
    """An item to describe; the result is a `matinee.models.enhancer.Description`."""

    item: Item


@dataclass(frozen=True, slots=True)
class Rank:
    """A recommendation or a search over the version made by `fingerprint` (None: the request brings no vector). -> `Answer`"""

    call: ExampleQuery | TextQuery
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Stored items by id -> list of payloads, None where there is none (or only a tombstone)."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the catalogue in id order -> `(list of (id, payload), next cursor)`."""

    limit: int
    after: str | None = None
    since: int = 0
    filter: ItemFilter = ItemFilter()
    origin: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Suggest:
    """Type-ahead -> list of {id, title, year}."""

    prefix: str
    limit: int


@dataclass(frozen=True, slots=True)
class Write:
    """Points made under `fingerprint` and `recipe` -> how many were written (see `LiveIndex.upsert`)."""

    points: tuple[Point, ...]
    fingerprint: str
    recipe: Recipe
    if_revision: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """-> the payload that was deleted, or None."""

    id: str


@dataclass(frozen=True, slots=True)
class Facets:
    """-> {field: list of (value, count)} and the number of items."""

    filter: ItemFilter = ItemFilter()
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Pending:
    """Items whose background work is not done, from the id `after` on and then from the first -> list of (id, payload)."""

    limit: int
    after: str


@dataclass(frozen=True, slots=True)
class Status:
    """-> the manifest of the current version as a dict, with `previous`; None before the first ingest."""


RetrieverUnit = Rank | Fetch | Page | Suggest | Write | Delete | Facets | Pending | Status

Json = dict[str, Any]
