"""The Retriever's side of imports: it keeps their records beside the index, as gateways ask it to. Reads no lines."""

from collections.abc import Sequence

from matinee.errors import ImportsFullError
from matinee.index.active import ActiveIndex
from matinee.index.imports import OPEN, ImportJob, ImportStore, new_job

REMEMBERED = 20
"""Jobs that are over and still listed; older ones are forgotten when a new one starts."""


class ImportRecords:
    """The records of one catalogue's imports."""

    def __init__(self, store: ImportStore, active: ActiveIndex) -> None:
        self._store = store
        self._active = active

    async def jobs(self, *, unfinished: bool) -> list[ImportJob]:
        jobs = await self._store.jobs()
        return [job for job in jobs if job.status in OPEN] if unfinished else jobs

    async def save(self, job: ImportJob, drop: Sequence[int]) -> bool:
        saved = await self._store.save(job)
        if saved and drop:
            await self._store.drop(job.id, drop)
        return saved

    async def add(self, id: str, number: int, lines: bytes) -> None:
        await self._store.add(id, number, lines)

    async def chunk(self, id: str, number: int) -> bytes | None:
        return await self._store.chunk(id, number)

    async def remove(self, id: str) -> None:
        await self._store.remove(id)

    async def start(self, source: str, most: int) -> ImportJob:
        jobs = await self._store.jobs()
        if sum(job.status in OPEN for job in jobs) >= most:
            raise ImportsFullError(f"{most} imports are open already (serving.imports.open): wait for the end of one, or cancel one")
        for old in [job for job in jobs if job.status not in OPEN][:-REMEMBERED]:
            await self._store.remove(old.id)
        job = new_job(source, await self._active.stamp())
        await self._store.save(job)
        return job.model_copy(update={"version": job.version + 1})
