"""What the Retriever answers to its messages, but for rankings: reads, writes and imports of the active index. Does not know batches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matinee.errors import ImportsFullError, IndexAbsentError, IndexLockedError, IndexUnavailableError, MatineeError
from matinee.filters import ItemFilter
from matinee.filters.attributes import facet_names
from matinee.index.active import NO_INDEX, ActiveIndex, Written
from matinee.index.ids import locate
from matinee.index.imports import ImportJob, new_job
from matinee.index.lease import BuildWatch
from matinee.index.progress import BuildProgress
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import FacetCount, Manifest, Payload, Point, Scroll
from matinee.recommend import titles
from matinee.settings.index import Recipe
from serve.graph.tasks import OngoingChanges

REMEMBERED_IMPORTS = 20
"""Imports that are over and still listed; older ones are forgotten when a new one starts."""

IndexedItem = tuple[str, Payload]
"""Index id and payload of an item."""


@dataclass(frozen=True, slots=True)
class CountedValues:
    """Values of attributes with their counts, and how many items pass the filter. `approximate`: the former may be estimates."""

    values: dict[str, list[FacetCount]]
    count: int
    approximate: bool


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The version that answers: `manifest` is None before the first ingest, or while the index is out of reach.

    `previous` is the version that a rollback would bring back. `before` is the fingerprint of the encoder before a switch, while its
    vectors are still searched. `trouble` says why the current version can't be followed, `trouble_code` is the code of that error.
    `building`: another version is being built.
    """

    manifest: Manifest | None = None
    items: int = 0
    approximate: bool = False
    previous: str | None = None
    before: str | None = None
    trouble: str | None = None
    trouble_code: str | None = None
    building: bool = False

    def absence(self) -> MatineeError:
        """Why there is no manifest: the error that the Retriever answers everything else with."""
        kinds = (IndexLockedError, IndexUnavailableError)
        kind = next((kind for kind in kinds if kind.code == self.trouble_code), IndexAbsentError)
        return kind(self.trouble or NO_INDEX)


class IndexService(OngoingChanges):
    """The methods that messages name (`messages.SingleMessage.answer`). `failure`: why the current version can't be followed now.

    An index version of `exact_facets_below` items or more may estimate its counts of values.
    """

    def __init__(self, store: IndexStore, active: ActiveIndex, failure: Callable[[], MatineeError | None], exact_facets_below: int) -> None:
        super().__init__()
        self._store = store
        self._active = active
        self._failure = failure
        self._exact_facets_below = exact_facets_below
        self._builds = BuildWatch()
        self.imports = store.imports()

    def index(self, fingerprint: str | None = None) -> Index:
        """The open version made by `fingerprint`, or the current one. Raises where there is none."""
        failure = self._failure()
        if failure is not None and self._active.manifest is None:
            raise failure.with_traceback(None)
        return self._active.get(fingerprint)

    async def status(self) -> IndexStatus:
        failure, manifest = self._failure(), self._active.manifest
        trouble = None if failure is None else str(failure)
        mark: str | None = None
        previous: Manifest | None = None
        try:
            previous, mark = await asyncio.gather(self._store.previous(), self._store.lease_mark())
        except MatineeError as error:
            # The version that is open goes on answering, and its state must be known.
            trouble = trouble or (None if manifest is None else str(error))
        building = self._builds.seen("", mark)
        if manifest is None:
            return IndexStatus(trouble=trouble, trouble_code=None if failure is None else failure.code, building=building)
        index = self._active.get()
        return IndexStatus(
            manifest,
            items=await index.count(),
            approximate=index.approximate,
            previous=None if previous is None else previous.version,
            before=self._active.before,
            trouble=trouble,
            building=building,
        )

    async def build(self) -> BuildProgress | None:
        """The build that is under way, as far as it says."""
        mark = await self._store.lease_mark()
        return await self._store.build_progress() if self._builds.seen("", mark) else None

    async def fetch(self, ids: Sequence[str]) -> list[IndexedItem | None]:
        hits = await locate(self.index(), ids)
        return [None if (hit := hits[id]) is None or hit.payload.get("deleted") else (hit.id, hit.payload) for id in ids]

    async def page(self, scroll: Scroll) -> tuple[list[IndexedItem], str | None]:
        page, cursor = await self.index().scroll(scroll)
        return [(hit.id, hit.payload) for hit in page], cursor

    async def suggest(self, prefix: str, limit: int, filter: ItemFilter) -> list[IndexedItem]:
        return [(hit.id, hit.payload) for hit in await titles.suggest(self.index(), prefix, limit, filter)]

    async def facets(self, filter: ItemFilter, limit: int, attributes: Sequence[str]) -> CountedValues:
        index = self.index()
        names = facet_names(index.manifest.declared, attributes)
        count = await index.count(filter)
        exact = max(index.manifest.count, count) < self._exact_facets_below
        values = await asyncio.gather(*(index.facets(name, filter=filter, limit=limit, exact=exact) for name in names))
        return CountedValues(dict(zip(names, values, strict=True)), count, approximate=not exact)

    async def pending(self, limit: int, after: str) -> list[IndexedItem]:
        index = self.index()
        page, _ = await index.scroll(Scroll(limit=limit, after=after, pending=True))
        if len(page) < limit:
            first, _ = await index.scroll(Scroll(limit=limit - len(page), pending=True))
            page += first
        return list({hit.id: (hit.id, hit.payload) for hit in page}.values())

    async def write(
        self, points: Sequence[Point], fingerprint: str, recipe: Recipe, if_revision: dict[str, int] | None, asked: int | None
    ) -> Written:
        self.index()
        writing = self._active.upsert(points, fingerprint=fingerprint, recipe=recipe, if_revision=if_revision, asked=asked)
        return await self.finish(writing)

    async def change(self, points: Sequence[Point], expected: dict[str, int], fingerprint: str | None, recipe: Recipe) -> Written:
        self.index()
        return await self.finish(self._active.change(points, expected=expected, fingerprint=fingerprint, recipe=recipe))

    async def delete(self, id: str) -> str | None:
        hit = (await locate(self.index(), [id]))[id]
        gone = None if hit is None else await self.finish(self._active.delete(hit.id))
        return None if gone is None else gone.id

    async def delete_many(self, ids: Sequence[str], *, dry_run: bool) -> dict[str, str | None]:
        hits = await locate(self.index(), ids)
        uids = {id: None if hit is None or hit.payload.get("deleted") else hit.id for id, hit in hits.items()}
        there = list(dict.fromkeys(uid for uid in uids.values() if uid is not None))
        if dry_run or not there:
            return uids
        gone = {hit.id for hit in await self.finish(self._active.delete_all(there))}
        return {id: uid if uid in gone else None for id, uid in uids.items()}

    async def start_import(self, source: str, most: int) -> ImportJob:
        jobs = await self.imports.jobs()
        if sum(not job.is_over for job in jobs) >= most:
            raise ImportsFullError(f"{most} imports are open already (serving.imports.open): wait for the end of one, or cancel one")
        for old in [job for job in jobs if job.is_over][:-REMEMBERED_IMPORTS]:
            await self.imports.remove(old.id)
        job = new_job(source, await self._active.stamp())
        await self.imports.save(job)
        return job.model_copy(update={"version": job.version + 1})

    async def save_import(self, job: ImportJob, drop: Sequence[int]) -> bool:
        saved = await self.imports.save(job)
        if saved and drop:
            await self.imports.drop(job.id, drop)
        return saved
