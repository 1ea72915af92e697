"""What travels between deployments: the messages that each takes, with the type of its result. Plain data."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from matinee.filters import ItemFilter
from matinee.filters.attributes import Attribute
from matinee.index.active import Written
from matinee.index.imports import ImportJob
from matinee.index.progress import BuildProgress
from matinee.index.registry import CatalogueChanges, CatalogueRecord, CatalogueReport
from matinee.index.types import Point, Scroll
from matinee.items import Item
from matinee.models.types import Description, Kind
from matinee.recommend.queries import ExampleQuery, RankedItems, TextQuery
from matinee.settings.index import Recipe
from serve.graph.catalogue_manager import CatalogueManager
from serve.graph.index_service import CountedValues, IndexedItem, IndexService, IndexStatus

Result_co = TypeVar("Result_co", covariant=True)

Json = dict[str, object]
"""A JSON object that is passed on as it is."""


class Message(Generic[Result_co]):
    """A message whose result has the type `Result_co`."""

    __slots__ = ()


class RetrieverMessage(Message[Result_co]):
    """A message to the Retriever."""

    __slots__ = ()


class SingleMessage(RetrieverMessage[Result_co]):
    """A message to the Retriever that it answers alone, by the method that the message names: so the result has the message's type."""

    __slots__ = ()

    @abstractmethod
    async def answer(self, service: IndexService) -> Result_co: ...


class CataloguesMessage(RetrieverMessage[Result_co]):
    """A message to the Retriever about its catalogues, answered by the method that it names."""

    __slots__ = ()

    @abstractmethod
    async def answer(self, manager: CatalogueManager) -> Result_co: ...


@dataclass(frozen=True, slots=True)
class In(RetrieverMessage[Result_co]):
    """A message to a catalogue beside the default one. Those to the default one travel as they are."""

    catalogue: str
    message: RetrieverMessage[Result_co]


@dataclass(frozen=True, slots=True)
class Embedded:
    """float32[n, d], and the fingerprint of the encoder that made them."""

    fingerprint: str
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Embed(Message[Embedded]):
    """Texts to embed. `bulk`: not for somebody who waits for a ranking, so searches go first.

    `catalogue`: whose share of the queues it counts on; the default one's is empty.
    """

    texts: tuple[str, ...]
    kind: Kind = "query"
    bulk: bool = False
    catalogue: str = ""

    @property
    def tokens(self) -> int:
        """About how many tokens an encoder reads, long texts cut by it included: cutting needs their tokens too."""
        return sum(about_tokens(text) for text in self.texts)


def about_tokens(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer: never far below, up to twice too many in English."""
    return len(text.encode()) // 3 + 2


@dataclass(frozen=True, slots=True)
class Describe(Message[Description]):
    """An item to describe. `bulk` and `catalogue` as in `Embed`."""

    item: Item
    bulk: bool = False
    catalogue: str = ""


@dataclass(frozen=True, slots=True)
class Rank(RetrieverMessage[RankedItems]):
    """A recommendation or a search in the version made by `fingerprint`; None if the request has no vector. `bulk` as in `Embed`."""

    query: ExampleQuery | TextQuery
    fingerprint: str | None = None
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Fetch(SingleMessage[list[IndexedItem | None]]):
    """Index ids and payloads of items by the catalogue's ids or the index'; None for an item that is not in the index, or deleted."""

    ids: tuple[str, ...]

    async def answer(self, service: IndexService) -> list[IndexedItem | None]:
        return await service.fetch(self.ids)


@dataclass(frozen=True, slots=True)
class Page(SingleMessage[tuple[list[IndexedItem], str | None]]):
    """A page of the catalogue in id order: ids and payloads, and the cursor of the next page."""

    limit: int
    after: str | None = None
    since: int = 0
    filter: ItemFilter = ItemFilter()
    origin: str | None = None
    deleted: bool = False

    async def answer(self, service: IndexService) -> tuple[list[IndexedItem], str | None]:
        scroll = Scroll(self.limit, self.after, self.filter, self.since, self.origin, self.deleted)
        return await service.page(scroll)


@dataclass(frozen=True, slots=True)
class Suggest(SingleMessage[list[IndexedItem]]):
    """Type-ahead: ids and payloads of items whose titles begin, or nearly begin, like `prefix`."""

    prefix: str
    limit: int
    filter: ItemFilter = ItemFilter()

    async def answer(self, service: IndexService) -> list[IndexedItem]:
        return await service.suggest(self.prefix, self.limit, self.filter)


@dataclass(frozen=True, slots=True)
class Write(SingleMessage[Written]):
    """Points made under `fingerprint` and `recipe` (see `ActiveIndex.upsert`)."""

    points: tuple[Point, ...]
    fingerprint: str
    recipe: Recipe
    if_revision: dict[str, int] | None = None
    asked: int | None = None

    async def answer(self, service: IndexService) -> Written:
        return await service.write(self.points, self.fingerprint, self.recipe, self.if_revision, self.asked)


@dataclass(frozen=True, slots=True)
class Change(SingleMessage[Written]):
    """Newer facts of items that have the revisions `expected`; without `fingerprint`, with the vectors they have (`ActiveIndex.change`)."""

    points: tuple[Point, ...]
    expected: dict[str, int]
    fingerprint: str | None = None
    recipe: Recipe = "raw"

    async def answer(self, service: IndexService) -> Written:
        return await service.change(self.points, self.expected, self.fingerprint, self.recipe)


@dataclass(frozen=True, slots=True)
class Delete(SingleMessage[str | None]):
    """An item to delete, by the catalogue's id or the index'; the result is its index id, None if there was no such item."""

    id: str

    async def answer(self, service: IndexService) -> str | None:
        return await service.delete(self.id)


@dataclass(frozen=True, slots=True)
class DeleteMany(SingleMessage[dict[str, str | None]]):
    """Items to delete together, or with `dry_run` only to look up: each of `ids` with its index id, None if there is no such item."""

    ids: tuple[str, ...]
    dry_run: bool = False

    async def answer(self, service: IndexService) -> dict[str, str | None]:
        return await service.delete_many(self.ids, dry_run=self.dry_run)


@dataclass(frozen=True, slots=True)
class StartImport(SingleMessage[ImportJob]):
    """A new import job, which receives its lines. At most `most` may be open."""

    source: str
    most: int

    async def answer(self, service: IndexService) -> ImportJob:
        return await service.finish(service.start_import(self.source, self.most))


@dataclass(frozen=True, slots=True)
class ListImports(SingleMessage[list[ImportJob]]):
    """All import jobs that are remembered, or those that are not over, in the order in which they were asked for."""

    unfinished: bool = False

    async def answer(self, service: IndexService) -> list[ImportJob]:
        jobs = await service.finish(service.imports.jobs())
        return [job for job in jobs if not job.is_over or not self.unfinished]


@dataclass(frozen=True, slots=True)
class ReadBuild(SingleMessage[BuildProgress | None]):
    """How far the build is that runs beside this server."""

    async def answer(self, service: IndexService) -> BuildProgress | None:
        return await service.build()


@dataclass(frozen=True, slots=True)
class SaveImport(SingleMessage[bool]):
    """A job's next version (`ImportStore.save`), and chunks that are not needed any more once it is written."""

    job: ImportJob
    drop: tuple[int, ...] = ()

    async def answer(self, service: IndexService) -> bool:
        return await service.finish(service.save_import(self.job, self.drop))


@dataclass(frozen=True, slots=True)
class AddChunk(SingleMessage[None]):
    """A chunk of an import's lines."""

    id: str
    number: int
    lines: bytes

    async def answer(self, service: IndexService) -> None:
        await service.finish(service.imports.add(self.id, self.number, self.lines))


@dataclass(frozen=True, slots=True)
class ReadChunk(SingleMessage[bytes | None]):
    """A chunk of an import's lines, None where there is none."""

    id: str
    number: int

    async def answer(self, service: IndexService) -> bytes | None:
        return await service.finish(service.imports.chunk(self.id, self.number))


@dataclass(frozen=True, slots=True)
class RemoveImport(SingleMessage[None]):
    """An import to forget, with its lines."""

    id: str

    async def answer(self, service: IndexService) -> None:
        await service.finish(service.imports.remove(self.id))


@dataclass(frozen=True, slots=True)
class Facets(SingleMessage[CountedValues]):
    """Values of `attributes` with their counts, and the number of items, among those that pass `filter`.

    Without attributes, those that are declared as facets.
    """

    filter: ItemFilter = ItemFilter()
    limit: int = 50
    attributes: tuple[str, ...] = ()

    async def answer(self, service: IndexService) -> CountedValues:
        return await service.facets(self.filter, self.limit, self.attributes)


@dataclass(frozen=True, slots=True)
class Pending(SingleMessage[list[IndexedItem]]):
    """Ids and payloads of items whose background work is not done, from the id `after` on and then from the first."""

    limit: int
    after: str

    async def answer(self, service: IndexService) -> list[IndexedItem]:
        return await service.pending(self.limit, self.after)


@dataclass(frozen=True, slots=True)
class ReadStatus(SingleMessage[IndexStatus]):
    """The state of the index."""

    async def answer(self, service: IndexService) -> IndexStatus:
        return await service.status()


@dataclass(frozen=True, slots=True)
class CatalogueEntries(CataloguesMessage[list[CatalogueReport]]):
    """All catalogues, or those of `names`, the default one first."""

    names: tuple[str, ...] | None = None

    async def answer(self, manager: CatalogueManager) -> list[CatalogueReport]:
        return await manager.entries(self.names)


@dataclass(frozen=True, slots=True)
class CatalogueRecords(CataloguesMessage[dict[str, CatalogueRecord]]):
    """What the registry says of the catalogues beside the default one, by name."""

    async def answer(self, manager: CatalogueManager) -> dict[str, CatalogueRecord]:
        return await manager.records()


@dataclass(frozen=True, slots=True)
class BusyCatalogues(CataloguesMessage[list[str]]):
    """The catalogues beside the default one that may have background work."""

    async def answer(self, manager: CatalogueManager) -> list[str]:
        return await manager.busy()


@dataclass(frozen=True, slots=True)
class CreateCatalogue(CataloguesMessage[CatalogueReport]):
    """A new catalogue, with an empty index for vectors of `fingerprint`."""

    record: CatalogueRecord
    fingerprint: str
    dimension: int

    async def answer(self, manager: CatalogueManager) -> CatalogueReport:
        return await manager.create(self.record, self.fingerprint, self.dimension)


@dataclass(frozen=True, slots=True)
class ChangeCatalogue(CataloguesMessage[CatalogueReport]):
    """Changes of a catalogue. Those of its attributes may still be under way when the entry comes: it says so."""

    name: str
    changes: CatalogueChanges

    async def answer(self, by: CatalogueManager) -> CatalogueReport:
        return await by.change(self.name, self.changes)


@dataclass(frozen=True, slots=True)
class CreateIndex(CataloguesMessage[CatalogueReport]):
    """A first, empty index for vectors of `fingerprint`, in a catalogue that has none."""

    name: str
    attributes: dict[str, Attribute] | None
    fingerprint: str
    dimension: int

    async def answer(self, by: CatalogueManager) -> CatalogueReport:
        return await by.create_index(self.name, self.attributes, self.fingerprint, self.dimension)


@dataclass(frozen=True, slots=True)
class DeleteCatalogue(CataloguesMessage[None]):
    """A catalogue to delete, with all its items."""

    name: str

    async def answer(self, manager: CatalogueManager) -> None:
        await manager.delete(self.name)


def inner_of(message: RetrieverMessage[Result_co]) -> RetrieverMessage[Result_co]:
    """What is asked, in whichever catalogue."""
    return message.message if isinstance(message, In) else message


def catalogue_of(message: object) -> str:
    """Whose share of a queue a message counts on; empty for the default catalogue."""
    return message.catalogue if isinstance(message, Embed | In | Describe) else ""


PASSIVE = (Pending, ListImports)
"""What a gateway asks for again and again, to see whether there is background work."""

IMPORTS = (StartImport, ListImports, ReadBuild, SaveImport, AddChunk, ReadChunk, RemoveImport)
"""What is asked of the imports beside the index, and needs no version of it to be open."""
