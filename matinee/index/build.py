"""Items -> points -> a new index version, verified and switched to.

A build is the file's items plus the API's items, minus what was deleted through the API; an item that the API has written wins over
the file's. The stages between a reader and an index are functions of `PointMaker`, `chunks` and `write_points`: the loop of this process
calls them, and so do the workers of a cluster (`FileWriter`). Does not read files (`catalogue`) and does not parse arguments
(`train.ingest`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, Protocol, Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed, wait_random_exponential

from matinee.errors import IndexLockedError, IndexUnavailableError, IndexUnreachableError
from matinee.filters.attributes import Attribute
from matinee.index.active import new_revision
from matinee.index.item_vector import dimensions
from matinee.index.lease import Held
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import (
    BM25,
    TEXT,
    TITLE,
    DenseQuery,
    Hit,
    Manifest,
    Payload,
    Point,
    Scroll,
    Search,
    item_payload,
    new_version,
    tombstone,
)
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder, title_trigrams
from matinee.models.types import Encoder
from matinee.settings.index import FactWeights, Recipe
from matinee.text import templates
from matinee.text.recipe import ItemTexts
from matinee.vectors import Matrix, Vector

BATCH = 256
"""Points a write: a Qdrant server takes them well, and a kill loses little."""
WRITE_PATIENCE_S = 300.0
"""For a server that is out of reach: a restart of it should not cost the hours that a build took so far."""

Origin = Literal["file", "api"]

_SAMPLE = 64
_RELEASE_S = 60.0
_SELF = 0.99
_OVERLAP = 60_000_000
"""Microseconds. Two Retrievers may write at the same moment, so an older revision may arrive this much later."""

Describe = Callable[[Sequence[Item]], Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class ApiItem:
    """A write of the API: an item, or the tombstone of a deleted one. `asked`: the revision when an import asked for it."""

    id: str
    revision: int
    item: Item | None
    asked: int | None = None


class ApiWrites(Protocol):
    """Where the API's writes of the active index are read from, a page at a time: the open index itself, or a running server."""

    def read(self, since: int) -> AsyncGenerator[list[ApiItem]]: ...


@dataclass
class KnownWrites:
    """What is known of the API's writes: the newest revision of each id, and how many are items. The others are tombstones."""

    revisions: dict[str, int] = field(default_factory=dict)
    _stored: set[str] = field(default_factory=set)

    @classmethod
    async def of(cls, pages: AsyncGenerator[list[ApiItem]]) -> Self:
        written = cls()
        async for page in pages:
            written.add(page)
        return written

    def add(self, entries: Iterable[ApiItem]) -> None:
        for entry in entries:
            self.revisions[entry.id] = entry.revision
            (self._stored.discard if entry.item is None else self._stored.add)(entry.id)

    def unknown(self, entries: Iterable[ApiItem]) -> list[ApiItem]:
        return [entry for entry in entries if self.revisions.get(entry.id) != entry.revision]

    @property
    def items(self) -> int:
        return len(self._stored)

    @property
    def newest(self) -> int:
        return max(self.revisions.values(), default=0)

    @property
    def stable_revision(self) -> int:
        return stable_revision(self.newest)


@dataclass
class Outcome:
    """What a build did."""

    manifest: Manifest
    previous: Manifest | None
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that become points together, their index ids, and the texts that are embedded."""

    ids: Sequence[str]
    items: Sequence[Item]
    descriptions: Sequence[str | None]
    texts: ItemTexts


class PointMaker:
    """Items -> points, under one encoder and one recipe; `describe` writes the descriptions that the recipe wants.

    A call makes them all in one go. A build takes the steps apart: `encode` may run in another thread.
    """

    def __init__(
        self,
        embedder: Encoder,
        recipe: Recipe,
        *,
        language: str | None = "english",
        describe: Describe | None = None,
        facts: FactWeights = FactWeights(),  # noqa: B008  it is frozen
    ) -> None:
        self.embedder = embedder
        self.recipe = recipe
        self.facts = facts
        self._bm25 = Bm25Encoder(language)
        self._describe = describe

    def __call__(self, items: Sequence[Item], ids: Sequence[str], *, origin: Origin, revisions: Sequence[int]) -> list[Point]:
        batch = self.batch(items, ids)
        return self.points(batch, self.encode(batch), origin=origin, revisions=revisions)

    def batch(self, items: Sequence[Item], ids: Sequence[str]) -> Batch:
        """Describes the items where the recipe wants it."""
        descriptions: Sequence[str | None] = [None] * len(items)
        if self.recipe != "raw" and self._describe is not None:
            descriptions = self._describe(items)
        return described_batch(items, ids, descriptions, self.recipe)

    def encode(self, batch: Batch) -> Matrix:
        """float32[items, d]"""
        return batch.texts.join(self.embedder.encode(batch.texts.flat, kind="document"))

    def points(self, batch: Batch, vectors: Matrix, *, origin: Origin, revisions: Sequence[int]) -> list[Point]:
        return batch_points(batch, vectors, origin=origin, revisions=revisions, recipe=self.recipe, bm25=self._bm25)


def chunks(items: Iterable[Item], catalogue: str, taken: Container[str]) -> Iterator[dict[str, Item]]:
    """The items by their index ids, `BATCH` at a time, without those whose ids are `taken`."""
    numbered = ((uid, item) for item in items if (uid := item.uid(catalogue)) not in taken)
    while chunk := dict(islice(numbered, BATCH)):
        yield chunk


def described_batch(items: Sequence[Item], ids: Sequence[str], descriptions: Sequence[str | None], recipe: Recipe) -> Batch:
    """A batch of items whose descriptions are there, or not wanted."""
    return Batch(ids, items, descriptions, ItemTexts(items, descriptions, recipe))


def batch_points(
    batch: Batch, vectors: Matrix, *, origin: Origin, revisions: Sequence[int], recipe: Recipe, bm25: Bm25Encoder
) -> list[Point]:
    """The points of a batch with its vectors. Their ids are made of the items: writing a batch twice is writing it once."""
    payloads = [
        item_payload(item, origin=origin, revision=revision, description=description)
        for item, revision, description in zip(batch.items, revisions, batch.descriptions, strict=True)
    ]
    return [
        item_point(id, item, vector, payload, recipe=recipe, bm25=bm25)
        for id, item, vector, payload in zip(batch.ids, batch.items, vectors, payloads, strict=True)
    ]


async def write_points(index: Index, points: Sequence[Point]) -> None:
    """Write points; a server that is out of reach for a while is asked again, with growing pauses."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(IndexUnreachableError),
        wait=wait_random_exponential(multiplier=0.5, min=0.25, max=30),
        stop=stop_after_delay(WRITE_PATIENCE_S),
        reraise=True,
    )
    await retrying(index.upsert, points)


def item_point(id: str, item: Item, vector: Vector | None, payload: Payload, *, recipe: Recipe, bm25: Bm25Encoder) -> Point:
    """An item's point: its dense vector (None: not here), the terms of its text and of the people in it, its title's trigrams."""
    text = templates.embedded_text(item, payload.get("description"), recipe, template=templates.SPARSE_TEMPLATE)
    terms = bm25.document(" ".join([text, *item.names()]))
    return Point(id, payload, {} if vector is None else {TEXT: vector}, {BM25: terms, TITLE: title_trigrams(item.title)})


class FileWriter(Protocol):
    """Writes a file's items into a version that was begun, from other processes (`train.ingesting`)."""

    async def __call__(self, manifest: Manifest, taken: frozenset[str], progress: Callable[[str, int], None]) -> tuple[int, int]:
        """(items written, items left out because their ids are `taken`). The version is closed meanwhile, for whoever writes to it."""
        ...


@dataclass
class Build:
    """One build of a catalogue: `await run(items)` leaves a new, verified, current version, or raises and leaves everything as it was.

    One at a time: raises `IndexLockedError` while another build of the catalogue runs. Afterwards the newest `keep` versions stay; None
    removes nothing. `attributes` are what its items can be filtered by; None: `DEFAULT_ATTRIBUTES`. With `write_file`, others write
    the file's items, and this process only what the API wrote.
    """

    store: IndexStore
    maker: PointMaker
    catalogue: str
    source: str
    api: ApiWrites | None = None
    replace: bool = False
    release: int | None = None
    progress: Callable[[str, int], None] = lambda stage, count: None
    keep: int | None = None
    attributes: Mapping[str, Attribute] | None = None
    write_file: FileWriter | None = None

    async def run(self, items: Iterable[Item]) -> Outcome:
        async with self.store.lease() as held:
            outcome = await self._run(items, held)
            if self.keep is not None:
                # Another build may have taken the lease over. It prunes at its own end, and this version is current all the same.
                with suppress(IndexLockedError):
                    await held()
                    await self.store.prune(self.keep)
        return outcome

    async def _run(self, items: Iterable[Item], held: Held) -> Outcome:
        previous = await self.store.current()
        # Ids and revisions only. The items are read once more when they are written: they may be more than fit into memory.
        known = KnownWrites() if self.api is None else await KnownWrites.of(self.api.read(0))
        discarded = known.items if self.replace else 0
        revision = self._newest(known) if self.replace else known.stable_revision
        manifest = self._manifest(revision)
        index = await self.store.create(manifest)
        try:
            taken = frozenset(() if self.replace else known.revisions)
            if self.write_file is None:
                from_file, shadowed = await self._write_file(index, items, taken)
            else:
                await index.close()
                from_file, shadowed = await self.write_file(manifest, taken, self.progress)
                index = await self._reopened(manifest)
            kept = KnownWrites()
            if not self.replace and self.api is not None:
                while await self._write_api(index, self.api, kept):
                    pass
                revision = kept.stable_revision
            tombstones = len(kept.revisions) - kept.items
            counted = {"file": from_file, "api": kept.items, "tombstones": tombstones, "shadowed": shadowed, "discarded": discarded}
            await _verify(index)
            manifest = manifest.model_copy(update={"count": await index.count(), "revision": revision})
        finally:
            await index.close()
        self.progress("finishing", 0)
        await self.store.finish(manifest)
        await held()
        await self.store.switch(manifest.version)
        return Outcome(manifest, previous, counted)

    def _newest(self, written: "KnownWrites") -> int:
        """The revision of the last API write, by the writers' clock if there is one. A build with `replace` leaves out writes up to it."""
        return new_revision() if self.api is None else written.newest

    def _manifest(self, revision: int) -> Manifest:
        embedder = self.maker.embedder
        manifest = new_manifest(
            self.catalogue, embedder.fingerprint, embedder.dimension, self.maker.recipe, self.maker.facts, self.source, self.attributes
        )
        return manifest.model_copy(update={"revision": revision, "models": {"embedder": embedder.model_id}, "release": self.release})

    async def _reopened(self, manifest: Manifest) -> Index:
        """The version that others have written to. The last of them may hold it for a moment longer."""
        held = AsyncRetrying(
            retry=retry_if_exception_type(IndexLockedError), wait=wait_fixed(0.1), stop=stop_after_delay(_RELEASE_S), reraise=True
        )
        index: Index = await held(self.store.resume, manifest)
        return index

    async def _write_file(self, index: Index, items: Iterable[Item], taken: frozenset[str]) -> tuple[int, int]:
        """(items written, items left out because the API wrote or deleted them)"""
        written = read = 0

        def counted() -> Iterator[Item]:
            nonlocal read
            for item in items:
                read += 1
                yield item

        async with aclosing(self._encode(chunks(counted(), self.catalogue, taken))) as encoded:
            async for batch, vectors in encoded:
                await write_points(index, self.maker.points(batch, vectors, origin="file", revisions=[0] * len(batch.ids)))
                written += len(batch.ids)
                self.progress("items", len(batch.ids))
        return written, read - written

    async def _encode(self, items: Iterator[dict[str, Item]]) -> AsyncGenerator[tuple[Batch, Matrix]]:
        """Batches and their vectors. While one is encoded, the one before it is written and the next one read: the encoder never waits."""

        def encode(batch: Batch) -> tuple[Batch, Matrix]:
            return batch, self.maker.encode(batch)

        encoding: asyncio.Task[tuple[Batch, Matrix]] | None = None
        try:
            for chunk in items:
                # In a thread: descriptions take minutes, and the loop must renew the lease meanwhile.
                batch = await asyncio.to_thread(self.maker.batch, [*chunk.values()], [*chunk])
                encoded = await encoding if encoding is not None else None
                encoding = asyncio.create_task(asyncio.to_thread(encode, batch))
                if encoded is not None:
                    yield encoded
            if encoding is not None:
                yield await encoding
        finally:
            if encoding is not None:
                # A thread can't be interrupted. Wait for it, and drop its error: nobody would handle it.
                await asyncio.gather(encoding, return_exceptions=True)

    async def _write_api(self, index: Index, api: ApiWrites, known: "KnownWrites") -> int:
        """Write what the API wrote and is not `known` yet, which it is then; returns how many entries that were."""
        before = len(known.revisions)
        count = 0
        async with aclosing(api.read(known.stable_revision if before else 0)) as pages:
            async for page in pages:
                late = known.unknown(page)
                await self._write_entries(index, late)
                known.add(late)
                count += len(late)
        return count

    async def _write_entries(self, index: Index, entries: Sequence[ApiItem]) -> None:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            present = [(entry, entry.item) for entry in batch if entry.item is not None]
            points = [tombstone(entry.id, revision=entry.revision) for entry in batch if entry.item is None]
            if present:
                ids, revisions = [entry.id for entry, _ in present], [entry.revision for entry, _ in present]
                items = [item for _, item in present]
                made = await asyncio.to_thread(self.maker, items, ids, origin="api", revisions=revisions)
                points += [_with_stamp(point, entry.asked) for point, (entry, _) in zip(made, present, strict=True)]
            await write_points(index, points)
            self.progress("api items", len(batch))


def new_manifest(
    catalogue: str,
    fingerprint: str,
    dimension: int,
    recipe: Recipe,
    facts: FactWeights,
    source: str,
    attributes: Mapping[str, Attribute] | None,
) -> Manifest:
    """The manifest of a version that is yet to be built."""
    return Manifest(
        version=new_version(fingerprint, recipe),
        catalogue=catalogue,
        fingerprint=fingerprint,
        recipe=recipe,
        dimensions=dimensions(dimension, facts),
        facts=facts if facts.any() else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        attributes=None if attributes is None else dict(attributes),
        titles=True,
    )


async def build_empty(store: IndexStore, manifest: Manifest) -> bool:
    """Make a version without items current: clients may write to it before the first ingest. False where there is a version already."""
    async with store.lease() as held:
        if await store.current() is not None:
            return False
        index = await store.create(manifest)
        await index.close()
        await store.finish(manifest)
        await held()
        await store.switch(manifest.version)
    return True


def _with_stamp(point: Point, asked: int | None) -> Point:
    return point if asked is None else replace(point, payload=point.payload | {"asked": asked})


def stable_revision(newest: int) -> int:
    """The newest revision at or below which no further write can arrive, where `newest` is the newest that arrived."""
    return max(0, newest - _OVERLAP)


async def _verify(index: Index) -> None:
    """Check that a sample of points find themselves, so that a version with broken vectors never becomes current."""
    sample, _ = await index.scroll(Scroll(limit=_SAMPLE, vectors=True))
    probes = [hit for hit in sample if hit.vector is not None]
    if len(probes) < len(sample):
        raise IndexUnavailableError(f"version {index.manifest.version} has items without vectors; it was not made current")
    answers = await index.search([Search(DenseQuery(hit.vector), 1, exact=True) for hit in probes if hit.vector is not None])
    lost = [hit.payload["title"] for hit, best in zip(probes, answers, strict=True) if not best or not best[0].score >= _SELF]
    if lost:
        raise IndexUnavailableError(
            f"version {index.manifest.version} does not find {lost[0]!r} by its own vector; it was not made current"
        )


class IndexWrites:
    """The API's writes, read from the open index itself (no server is running)."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        after: str | None = None
        while True:
            page, after = await self.page(since, after)
            yield page
            if after is None:
                return

    async def page(self, since: int, after: str | None, limit: int = BATCH) -> tuple[list[ApiItem], str | None]:
        """The writes from the cursor `after` on, and the cursor of the next page."""
        page, following = await self._index.scroll(Scroll(limit=limit, after=after, since=since, origin="api", deleted=True))
        return [_api_item(hit) for hit in page], following


def _api_item(hit: Hit) -> ApiItem:
    item = None if hit.payload.get("deleted") else Item.model_validate(hit.payload["item"])
    return ApiItem(hit.id, hit.payload["revision"], item, hit.payload.get("asked"))
