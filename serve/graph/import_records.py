"""The Retriever's side of imports: it keeps their records beside the index, as gateways ask it to. Reads no lines."""

from matinee.errors import ImportsFullError
from matinee.index.active import ActiveIndex
from matinee.index.imports import OPEN, ImportJob, ImportStore, new_job
from serve.graph import messages

REMEMBERED = 20
"""Jobs that are over and still listed; older ones are forgotten when a new one starts."""


class ImportRecords:
    """Answers the messages of `messages.IMPORTS`."""

    def __init__(self, store: ImportStore, active: ActiveIndex) -> None:
        self._store = store
        self._active = active

    async def answer(self, message: messages.RetrieverMessage[object]) -> object:
        match message:
            case messages.StartImport(source, most):
                return await self._start(source, most)
            case messages.ImportJobs(unfinished):
                jobs = await self._store.jobs()
                return [job for job in jobs if job.status in OPEN] if unfinished else jobs
            case messages.SaveImport(job, drop):
                saved = await self._store.save(job)
                if saved and drop:
                    await self._store.drop(job.id, drop)
                return saved
            case messages.AddChunk(id, number, lines):
                await self._store.add(id, number, lines)
                return None
            case messages.ReadChunk(id, number):
                return await self._store.chunk(id, number)
            case messages.RemoveImport(id):
                await self._store.remove(id)
                return None
        raise TypeError(f"not a message about imports: {type(message).__name__}")

    async def _start(self, source: str, most: int) -> ImportJob:
        jobs = await self._store.jobs()
        if sum(job.status in OPEN for job in jobs) >= most:
            raise ImportsFullError(f"{most} imports are open already (serving.imports.open): wait for the end of one, or cancel one")
        for old in [job for job in jobs if job.status not in OPEN][:-REMEMBERED]:
            await self._store.remove(old.id)
        job = new_job(source, await self._active.stamp())
        await self._store.save(job)
        return job.model_copy(update={"version": job.version + 1})
