"""Items -> points -> a new index version, verified and switched to.

A build is the file's items plus the API's items, minus what was deleted through the API; an item that the API has written wins over
the file's. The stages between a reader and an index are those of `matinee.index.points`: the loop of this process calls them, and so do the
workers of a cluster (`FileWriter`). Does not read files (`matinee.catalogue`) and does not parse arguments (`train.ingest`).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from matinee.errors import IndexLockedError, IndexUnavailableError, MatineeError, ModelError
from matinee.filters.attributes import Attribute
from matinee.index.active import new_revision
from matinee.index.api_writes import ApiItem, ApiWrites, KnownWrites
from matinee.index.isolation import FailedItem
from matinee.index.item_vector import dimensions
from matinee.index.lease import Held
from matinee.index.points import (
    BATCH,
    Batch,
    PointMaker,
    chunks,
    describe_usable,
    described_batch,
    encode_usable,
    write_points,
)
from matinee.index.progress import FINISHING, NOTE_S, BuildProgress
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import (
    DenseQuery,
    Manifest,
    Point,
    Scroll,
    Search,
    new_version,
    tombstone,
)
from matinee.items import Item
from matinee.settings.index import FactWeights, Recipe
from matinee.vectors import Matrix

_SAMPLE = 64
_RELEASE_S = 60.0
_SELF = 0.99
_FIRST_S = 0.2


@dataclass
class Outcome:
    """What a build did."""

    manifest: Manifest
    previous: Manifest | None
    counts: dict[str, int] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)


class FileWriter(Protocol):
    """Writes a file's items into a version that was begun, from other processes (`train.ingesting`)."""

    async def __call__(
        self, manifest: Manifest, taken: frozenset[str], progress: Callable[[str, int], None]
    ) -> tuple[int, int, list[FailedItem]]:
        """(items written, items left out because their ids are `taken`, items that a model failed at).

        The version is closed meanwhile, for whoever writes to it.
        """
        ...


@dataclass
class Build:
    """One build of a catalogue: `await run(items)` leaves a new, verified, current version, or raises and leaves everything as it was.

    One at a time: raises `IndexLockedError` while another build of the catalogue runs. Afterwards the newest `keep` versions stay; None
    removes nothing. `attributes` are what its items can be filtered by; None: `DEFAULT_ATTRIBUTES`. With `write_file`, others write
    the file's items, and this process only what the API wrote. `total` are the file's items, where they are counted.
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
    total: int | None = None
    _noted: BuildProgress | None = field(default=None, init=False)
    _start: float = field(default=0.0, init=False)

    async def run(self, items: Iterable[Item]) -> Outcome:
        async with self.store.lease() as held:
            self._noted, self._start = None, time.monotonic()
            noting = asyncio.create_task(self._note(held))
            try:
                outcome = await self._run(items, held)
            finally:
                noting.cancel()
                await asyncio.gather(noting, return_exceptions=True)
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
        self._noted = BuildProgress(version=manifest.version, source=self.source, started=manifest.created, total=self.total)
        try:
            taken = frozenset(() if self.replace else known.revisions)
            if self.write_file is None:
                from_file, shadowed, failed = await self._write_file(index, items, taken)
            else:
                await index.close()
                from_file, shadowed, failed = await self.write_file(manifest, taken, self._advance)
                index = await self._reopen(manifest)
            if failed and not from_file:
                raise ModelError(f"no item could be made a point; the first, {failed[0].item.title!r}: {failed[0].reason}")
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
        self._advance(FINISHING, 0)
        await self.store.finish(manifest)
        await held()
        await self.store.switch(manifest.version)
        return Outcome(manifest, previous, counted, failed)

    def _advance(self, stage: str, count: int) -> None:
        """Also from another thread."""
        if (noted := self._noted) is not None:
            self._noted = noted.model_copy(update={"stage": stage, "items": noted.items + count})
        self.progress(stage, count)

    async def _note(self, held: Held) -> None:
        """Note the progress for servers, until the task is cancelled. A build goes on without where that fails."""
        while True:
            if (noted := self._noted) is not None:
                with suppress(MatineeError, OSError):
                    # Not beside the lease of another build.
                    await held()
                    await self.store.note_build(noted.model_copy(update={"spent_s": time.monotonic() - self._start}))
            await asyncio.sleep(NOTE_S if noted is not None else _FIRST_S)

    def _newest(self, written: KnownWrites) -> int:
        """The revision of the last API write, by the writers' clock if there is one. A build with `replace` leaves out writes up to it."""
        return new_revision() if self.api is None else written.newest

    def _manifest(self, revision: int) -> Manifest:
        embedder = self.maker.embedder
        manifest = new_manifest(
            self.catalogue, embedder.fingerprint, embedder.dimension, self.maker.recipe, self.maker.facts, self.source, self.attributes
        )
        return manifest.model_copy(update={"revision": revision, "models": {"embedder": embedder.model_id}, "release": self.release})

    async def _reopen(self, manifest: Manifest) -> Index:
        """The version that others have written to. The last of them may hold it for a moment longer."""
        held = AsyncRetrying(
            retry=retry_if_exception_type(IndexLockedError), wait=wait_fixed(0.1), stop=stop_after_delay(_RELEASE_S), reraise=True
        )
        index: Index = await held(self.store.resume, manifest)
        return index

    async def _write_file(self, index: Index, items: Iterable[Item], taken: frozenset[str]) -> tuple[int, int, list[FailedItem]]:
        """(items written, items left out because the API wrote or deleted them, items that a model failed at)"""
        written = read = 0
        failed: list[FailedItem] = []

        def count_read() -> Iterator[Item]:
            nonlocal read
            for item in items:
                read += 1
                yield item

        async with aclosing(self._encode(chunks(count_read(), self.catalogue, taken), failed)) as encoded:
            async for batch, vectors in encoded:
                await write_points(index, self.maker.points(batch, vectors, origin="file", revisions=[0] * len(batch.ids)))
                written += len(batch.ids)
                self._advance("items", len(batch.ids))
        return written, read - written - len(failed), failed

    async def _encode(self, items: Iterator[dict[str, Item]], failed: list[FailedItem]) -> AsyncGenerator[tuple[Batch, Matrix]]:
        """Batches and their vectors; items that a model fails at go to `failed`.

        While one is encoded, the one before it is written and the next one read: the encoder never waits.
        """
        recipe = self.maker.recipe

        def describe(ids: Sequence[str], items: Sequence[Item]) -> Batch:
            texts, reasons = describe_usable(ids, items, self.maker.describe)
            failed.extend(FailedItem(ids[place], items[place], reason) for place, reason in reasons.items())
            return described_batch([items[place] for place in texts], [ids[place] for place in texts], [*texts.values()], recipe)

        def encode(batch: Batch) -> tuple[Batch, Matrix]:
            places, vectors, reasons = encode_usable(batch, self.maker.encode, recipe)
            failed.extend(FailedItem(batch.ids[place], batch.items[place], reason) for place, reason in reasons.items())
            return batch.part(places, recipe), vectors

        encoding: asyncio.Task[tuple[Batch, Matrix]] | None = None
        try:
            for chunk in items:
                # In a thread: descriptions take minutes, and the loop must renew the lease meanwhile.
                batch = await asyncio.to_thread(describe, [*chunk], [*chunk.values()])
                encoded = await encoding if encoding is not None else None
                encoding = asyncio.create_task(asyncio.to_thread(encode, batch)) if batch.ids else None
                if encoded is not None:
                    yield encoded
            if encoding is not None:
                yield await encoding
        finally:
            if encoding is not None:
                # A thread can't be interrupted. Wait for it, and drop its error: nobody would handle it.
                await asyncio.gather(encoding, return_exceptions=True)

    async def _write_api(self, index: Index, api: ApiWrites, known: KnownWrites) -> int:
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
            self._advance("api items", len(batch))


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
