"""What travels between deployments: the messages that each takes, with the type of its result. Plain data, no behaviour."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from matinee.errors import IndexAbsentError, IndexLockedError, IndexUnavailableError, MatineeError
from matinee.filters import ItemFilter
from matinee.index.active import Written
from matinee.index.imports import ImportJob
from matinee.index.types import FacetCount, Manifest, Point
from matinee.items import Item
from matinee.models.types import Description, Kind
from matinee.recommend.queries import ExampleQuery, RankedItems, TextQuery
from matinee.settings.index import Recipe

Result_co = TypeVar("Result_co", covariant=True)

Json = dict[str, Any]  # type: ignore[explicit-any]
"""A JSON object. Python has no type for it, so this is the one `Any` of the request path."""

Payload = Json
"""What the index stores beside an item's vectors."""


class Message(Generic[Result_co]):
    """A message whose result has the type `Result_co`."""

    __slots__ = ()


class RetrieverMessage(Message[Result_co]):
    """A message to the Retriever."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Embedded:
    """float32[n, d], and the fingerprint of the encoder that made them."""

    fingerprint: str
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Embed(Message[Embedded]):
    """Texts to embed. `bulk`: not for somebody who waits for a ranking, so searches go first."""

    texts: tuple[str, ...]
    kind: Kind = "query"
    bulk: bool = False

    @property
    def tokens(self) -> int:
        """About how many tokens an encoder reads, long texts cut by it included: cutting needs their tokens too."""
        return sum(about_tokens(text) for text in self.texts)


def about_tokens(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer: never far below, up to twice too many in English."""
    return len(text.encode()) // 3 + 2


@dataclass(frozen=True, slots=True)
class Describe(Message[Description]):
    """An item to describe. `bulk` as in `Embed`."""

    item: Item
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Rank(RetrieverMessage[RankedItems]):
    """A recommendation or a search in the version made by `fingerprint`; None if the request has no vector. `bulk` as in `Embed`."""

    query: ExampleQuery | TextQuery
    fingerprint: str | None = None
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Fetch(RetrieverMessage[list[tuple[str, Payload] | None]]):
    """Index ids and payloads of items by the catalogue's ids or the index'; None for an item that is not in the index, or deleted."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page(RetrieverMessage[tuple[list[tuple[str, Payload]], str | None]]):
    """A page of the catalogue in id order: ids and payloads, and the cursor of the next page."""

    limit: int
    after: str | None = None
    since: int = 0
    filter: ItemFilter = ItemFilter()
    origin: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Suggest(RetrieverMessage[list[tuple[str, Payload]]]):
    """Type-ahead: ids and payloads of items whose titles begin, or nearly begin, like `prefix`."""

    prefix: str
    limit: int
    filter: ItemFilter = ItemFilter()


@dataclass(frozen=True, slots=True)
class Write(RetrieverMessage[Written]):
    """Points made under `fingerprint` and `recipe` (see `ActiveIndex.upsert`)."""

    points: tuple[Point, ...]
    fingerprint: str
    recipe: Recipe
    if_revision: dict[str, int] | None = None
    asked: int | None = None


@dataclass(frozen=True, slots=True)
class Change(RetrieverMessage[Written]):
    """Newer facts of items that have the revisions `expected`; without `fingerprint`, with the vectors they have (`ActiveIndex.change`)."""

    points: tuple[Point, ...]
    expected: dict[str, int]
    fingerprint: str | None = None
    recipe: Recipe = "raw"


@dataclass(frozen=True, slots=True)
class Delete(RetrieverMessage[str | None]):
    """An item to delete, by the catalogue's id or the index'; the result is its index id, None if there was no such item."""

    id: str


@dataclass(frozen=True, slots=True)
class DeleteMany(RetrieverMessage[dict[str, str | None]]):
    """Items to delete together, or with `dry_run` only to look up: each of `ids` with its index id, None if there is no such item."""

    ids: tuple[str, ...]
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class StartImport(RetrieverMessage[ImportJob]):
    """A new import job, which receives its lines. At most `most` may be open."""

    source: str
    most: int


@dataclass(frozen=True, slots=True)
class ImportJobs(RetrieverMessage[list[ImportJob]]):
    """All import jobs that are remembered, or those that are not over, in the order in which they were asked for."""

    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class SaveImport(RetrieverMessage[bool]):
    """A job's next version (`ImportStore.save`), and chunks that are not needed any more once it is written."""

    job: ImportJob
    drop: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AddChunk(RetrieverMessage[None]):
    """A chunk of an import's lines."""

    id: str
    number: int
    lines: bytes


@dataclass(frozen=True, slots=True)
class ReadChunk(RetrieverMessage[bytes | None]):
    """A chunk of an import's lines, None where there is none."""

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class RemoveImport(RetrieverMessage[None]):
    """An import to forget, with its lines."""

    id: str


@dataclass(frozen=True, slots=True)
class Facets(RetrieverMessage[tuple[dict[str, list[FacetCount]], int]]):
    """Values of `attributes` with their counts, and the number of items, among those that pass `filter`.

    Without attributes, those that are declared as facets.
    """

    filter: ItemFilter = ItemFilter()
    limit: int = 50
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending(RetrieverMessage[list[tuple[str, Payload]]]):
    """Ids and payloads of items whose background work is not done, from the id `after` on and then from the first."""

    limit: int
    after: str


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The version that answers: `manifest` is None before the first ingest, or while the index is out of reach.

    `previous` is the version that a rollback would bring back. `before` is the fingerprint of the encoder before a switch, while its
    vectors are still searched. `trouble` says why the current version can't be followed, `trouble_code` is the code of that error.
    """

    manifest: Manifest | None = None
    items: int = 0
    approximate: bool = False
    previous: str | None = None
    before: str | None = None
    trouble: str | None = None
    trouble_code: str | None = None

    def absence(self) -> MatineeError:
        """Why there is no manifest: the error that the Retriever answers everything else with."""
        kinds = (IndexLockedError, IndexUnavailableError)
        kind = next((kind for kind in kinds if kind.code == self.trouble_code), IndexAbsentError)
        return kind(self.trouble or "there is no index yet: build one with `matinee ingest FILE`")


@dataclass(frozen=True, slots=True)
class Status(RetrieverMessage[IndexStatus]):
    """The state of the index."""


IMPORTS = (StartImport, ImportJobs, SaveImport, AddChunk, ReadChunk, RemoveImport)
"""What is asked of the imports beside the index, and needs no version of it to be open."""
