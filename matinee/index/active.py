"""The active index of one catalogue: the current version, kept open, followed when it is switched, and written to.

Its one owner is the Retriever (or a command, while no server runs). Does not embed and does not build versions (`index.build`).
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from matinee.errors import FingerprintError, IndexAbsentError
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import TEXT, Hit, Manifest, Payload, Point, Scroll, tombstone
from matinee.settings.index import Recipe

log = logging.getLogger(__name__)

NO_INDEX = "there is no index yet: build one with `matinee ingest FILE`, or make an empty one with `matinee index create`"
_PAGE = 256


def new_revision(seen: int = 0) -> int:
    """Microseconds since 1970, or one more than the newest revision that was `seen`: revisions never go backwards, clocks do."""
    return max(seen + 1, time.time_ns() // 1000)


@dataclass(frozen=True, slots=True)
class Written:
    """How many points were written, and their revision; 0 if each kept its own."""

    count: int
    revision: int = 0


class ActiveIndex:
    """The open current version, and the one before it for as long as queries made by its encoder are still coming in.

    While the two were made by different encoders (a roll-over), both are kept up: what is written or deleted through either encoder is
    seen by the queries of both. Dense vectors of one mean nothing to the other: there, an item is found by title and terms until it is
    embedded anew.
    """

    def __init__(self, store: IndexStore) -> None:
        self._store = store
        self._current: Index | None = None
        self._draining: Index | None = None
        self._lock = asyncio.Lock()

    @property
    def manifest(self) -> Manifest | None:
        return None if self._current is None else self._current.manifest

    @property
    def before(self) -> str | None:
        """The fingerprint of the version before, while it is open."""
        return None if self._draining is None else self._draining.manifest.fingerprint

    def get(self, fingerprint: str | None = None) -> Index:
        """The index to search, with vectors of `fingerprint` (None: the request brings no vector of its own).

        Raises `IndexAbsentError` before the first ingest, `FingerprintError` when no open version was made by that encoder.
        """
        if self._current is None:
            raise IndexAbsentError(NO_INDEX)
        for index in (self._current, self._draining):
            if index is not None and fingerprint in (None, index.manifest.fingerprint):
                return index
        raise FingerprintError(
            f"the query was embedded by {str(fingerprint)[:8]}, the index by {self._current.manifest.fingerprint[:8]}: "
            "run `matinee ingest` again with the embedder that serves, or serve the one that built the index"
        )

    async def refresh(self, *, recover: bool = False) -> bool:
        """Follow the store's current version: open it, carry over what was written meanwhile, swap in one step. True if it changed.

        `recover`: at the first opening, carry over from the version before as well, in case a server died between a switch and this;
        where another encoder made it, it stays open, in case that encoder still serves.
        """
        async with self._lock:
            current = await self._store.current()
            if current is None or (self._current is not None and current.version == self._current.manifest.version):
                return False
            old, drained = self._current, self._draining
            if old is not None and old.manifest.version not in {manifest.version for manifest in await self._store.versions()}:
                # Two builds ran at once and pruned this version. It has no data any more, and must not block the new one.
                log.warning("index version %s was deleted while it was open", old.manifest.version)
                await old.close()
                old = None
            back = drained is not None and drained.manifest.version == current.version
            # A rollback: the embedded engine could not open that path a second time.
            fresh = drained if back and drained is not None else await self._store.open(current.version)
            try:
                if old is not None:
                    await _carry_over(old, fresh)
                elif recover:
                    old = await self._recover(fresh)
            except BaseException:
                # The next try must be able to open it.
                if not back:
                    await fresh.close()
                raise
            if back:
                drained = None
            if drained is not None:
                await drained.close()
            self._current, self._draining = fresh, old
            log.info("index version %s is active (%s items)", current.version, current.count)
            return True

    async def _recover(self, fresh: Index) -> Index | None:
        """Carry over from the version before. Returns that version, still open, if another encoder made it."""
        before = await self._store.previous()
        if before is None:
            return None
        index = await self._store.open(before.version)
        rolling = index.manifest.fingerprint != fresh.manifest.fingerprint
        try:
            await _carry_over(index, fresh)
        except BaseException:
            await index.close()
            raise
        if not rolling:
            await index.close()
        return index if rolling else None

    async def upsert(
        self,
        points: Sequence[Point],
        *,
        fingerprint: str,
        recipe: Recipe,
        if_revision: dict[str, int] | None = None,
        asked: int | None = None,
    ) -> Written:
        """Write points made under `fingerprint` and `recipe`, with a new revision. Under another recipe they are pending.

        With `if_revision`, a point is only written where the stored one still has that revision, which it keeps: a background job never
        overwrites a newer write. Such a job is for the current version alone: raises `FingerprintError` for any other encoder's vectors.

        With `asked`, the revision when the write was asked for, a point is only written where no later write or delete was asked for.
        """
        async with self._lock:
            current = self.get()
            if fingerprint != current.manifest.fingerprint and (if_revision is not None or not self._rolls_over(fingerprint)):
                raise _other_encoder(fingerprint, current.manifest)
            revision = 0
            if if_revision is None:
                if asked is not None:
                    there = await current.retrieve([point.id for point in points])
                    points = [
                        replace(point, payload=point.payload | {"asked": asked})
                        for point, hit in zip(points, there, strict=True)
                        if hit is None or hit.payload.get("asked", hit.payload["revision"]) <= asked
                    ]
                    if not points:
                        return Written(0)
                revision = await self._next_revision()
                points = [replace(point, payload=point.payload | {"revision": revision}) for point in points]
            else:
                stored = await current.retrieve([point.id for point in points])
                points = [p for p, hit in zip(points, stored, strict=True) if hit and hit.payload.get("revision") == if_revision[p.id]]
            for index in self._written_versions():
                same = index.manifest.fingerprint == fingerprint
                if same or if_revision is None:
                    await index.upsert(_adapt(points, index.manifest, fingerprint, recipe))
            return Written(len(points), revision)

    async def change(
        self, points: Sequence[Point], *, expected: Mapping[str, int], fingerprint: str | None = None, recipe: Recipe = "raw"
    ) -> Written:
        """Write newer facts of items, each only where the stored point still has the revision that is `expected`.

        Points without a dense vector (`fingerprint` None) keep what each version made of their text: its vector, its description, and
        whether either is still to be made. Others were made under `fingerprint` and `recipe`, as in `upsert`.
        """
        async with self._lock:
            current = self.get()
            if fingerprint not in (None, current.manifest.fingerprint) and not self._rolls_over(fingerprint):
                raise _other_encoder(fingerprint, current.manifest)
            stored = await current.retrieve([point.id for point in points])
            points = [
                point
                for point, hit in zip(points, stored, strict=True)
                if hit is not None and not hit.payload.get("deleted") and hit.payload.get("revision") == expected[point.id]
            ]
            if not points:
                return Written(0)
            revision = await self._next_revision()
            points = [replace(point, payload=point.payload | {"revision": revision}) for point in points]
            for index in self._written_versions():
                if fingerprint is None:
                    await index.upsert(await _with_stored_texts(points, index))
                else:
                    await index.upsert(_adapt(points, index.manifest, fingerprint, recipe))
            return Written(len(points), revision)

    async def stamp(self) -> int:
        """A revision above all that were written, for work that is asked for now and done later."""
        async with self._lock:
            self.get()
            return await self._next_revision()

    async def _next_revision(self) -> int:
        """Above every revision that the versions hold or were built from, also those that another Retriever's clock made."""
        seen = []
        for index in self._written_versions():
            try:
                seen += [index.manifest.revision, await index.max_revision()]
            except IndexAbsentError:
                if index is not self._draining:
                    raise
                # Two builds ended before this followed, and pruned the version before. Nobody searches it any more.
                log.warning("index version %s was deleted while it was open", index.manifest.version)
                self._draining = None
                await index.close()
        return new_revision(max(seen))

    async def delete(self, id: str) -> Hit | None:
        """Leave a tombstone. Returns the deleted point, None if there was none or only a tombstone."""
        return next(iter(await self.delete_all([id])), None)

    async def delete_all(self, ids: Sequence[str]) -> list[Hit]:
        """Leave tombstones under one revision. Returns the deleted points, without those that were deleted before."""
        async with self._lock:
            stored = await self.get().retrieve(ids)
            there = [hit for hit in stored if hit is not None and not hit.payload.get("deleted")]
            if there:
                revision = await self._next_revision()
                gone = [tombstone(hit.id, revision=revision) for hit in there]
                for index in self._written_versions():
                    await index.upsert(gone)
            return there

    def _rolls_over(self, fingerprint: str | None = None) -> bool:
        """Whether another encoder (that of `fingerprint`) made the version before."""
        current, before = self._current, self._draining
        if current is None or before is None or before.manifest.fingerprint == current.manifest.fingerprint:
            return False
        return fingerprint in (None, before.manifest.fingerprint)

    def _written_versions(self) -> list[Index]:
        """The versions that a write goes to. The current one comes last, and its result counts."""
        kept = [self._draining] if self._rolls_over() else []
        return [index for index in (*kept, self._current) if index is not None]

    def check_health(self, hang_s: float) -> None:
        """Raises `RuntimeError` where a call of an open version has run for more than `hang_s` seconds."""
        for index in (self._current, self._draining):
            if index is not None:
                index.check_health(hang_s)

    async def close(self) -> None:
        for index in (self._current, self._draining):
            if index is not None:
                await index.close()
        self._current = self._draining = None
        await self._store.close()


async def _carry_over(old: Index, fresh: Index) -> None:
    """Copy the API's writes that the build of `fresh` may not have seen (revisions above its manifest's) from `old`, where they are newer.

    What differs between the two in fingerprint or recipe is put right by the gateway's background job.
    """
    after: str | None = None
    while True:
        page, after = await old.scroll(Scroll(limit=_PAGE, after=after, since=fresh.manifest.revision, origin="api", deleted=True))
        there = await fresh.retrieve([hit.id for hit in page])
        newer = [a.id for a, b in zip(page, there, strict=True) if b is None or b.payload["revision"] < a.payload["revision"]]
        points = _adapt(await old.points(newer), fresh.manifest, old.manifest.fingerprint, old.manifest.recipe)
        if points:
            await fresh.upsert(points)
        if after is None:
            return


async def _with_stored_texts(points: Sequence[Point], index: Index) -> list[Point]:
    """The points with the text vectors that the stored ones have in `index`, and with all that is said there of their texts."""
    stored = {point.id: point for point in await index.points([point.id for point in points])}
    return [_with_stored_text(point, stored.get(point.id)) for point in points]


def _with_stored_text(point: Point, stored: Point | None) -> Point:
    if stored is None or stored.payload.get("deleted"):
        return replace(point, payload=point.payload | {"pending": True})
    kept = {key: value for key, value in stored.payload.items() if key in ("description", "enriched", "pending")}
    return replace(
        point, payload=point.payload | cast(Payload, kept), dense={name: stored.dense[name] for name in stored.dense if name == TEXT}
    )


def _other_encoder(fingerprint: str | None, manifest: Manifest) -> FingerprintError:
    return FingerprintError(
        f"these items were embedded by {str(fingerprint)[:8]}, the index by {manifest.fingerprint[:8]}: "
        "send them again; if that fails too, run `matinee ingest` again with the embedder that serves"
    )


def _adapt(points: Sequence[Point], into: Manifest, fingerprint: str, recipe: Recipe) -> list[Point]:
    """Points made under `fingerprint` and `recipe`, for the version `into`.

    Dense vectors of another encoder would mean nothing: without them the item is found by title and terms at once. Where the encoder or
    the recipe is another, the item is to be embedded yet.
    """
    same = into.fingerprint == fingerprint
    if same and into.recipe == recipe:
        return list(points)
    return [Point(p.id, p.payload | {"pending": not p.payload.get("deleted")}, p.dense if same else {}, p.sparse) for p in points]
