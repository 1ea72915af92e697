"""Import jobs: the lines are stored beside the index first, and a gateway writes them later.

Gateways keep no state of a job. The gateway that works on a job claims it in its record. If the record does not change for a while, another
gateway takes over. If two gateways write the same chunk, it counts once and replaces nothing newer. Jobs run one after the other, in the
order of their requests. Does not know HTTP.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeVar

from matinee.errors import MatineeError
from matinee.index.imports import MAX_REJECTS, ImportJob, RejectedLine, Status
from matinee.index.progress import BuildProgress
from matinee.items import Item
from serve.errors import ImportChangedError, RequestError
from serve.graph import messages
from serve.graph.bulk import Bulk
from serve.graph.gateway import Gateway
from serve.graph.item_lines import CHUNK, NOT_UTF8, Line, is_utf8, parse
from serve.graph.item_writes import ItemWrites
from serve.graph.tasks import BackgroundWork

log = logging.getLogger(__name__)

Result = TypeVar("Result")

EXPIRY_S = 10.0
"""How long a record may stay as it is before another gateway takes the job."""
_BEAT_S = 3.0
_TRIES = 5

LOST = "its lines are gone from beside the index: send it again"
"""The trouble of a job that is over. Others are texts of errors."""


class ImportJobs(BackgroundWork):
    """The imports of the catalogue, as one gateway takes them and works on them."""

    def __init__(self, gateway: Gateway, writes: ItemWrites, bulk: Bulk, *, idle_s: float = 5.0, expiry_s: float = EXPIRY_S) -> None:
        self._gateway = gateway
        self._writes = writes
        self._bulk = bulk
        self._settings = gateway.settings.serving
        self._idle_s = idle_s
        self._expiry_s = expiry_s
        self._me = uuid.uuid4().hex
        self._seen: dict[str, tuple[int, float]] = {}
        self._wake = asyncio.Event()

    # what clients ask

    async def receive(self, lines: AsyncIterator[Line], source: str) -> ImportJob:
        """Store all lines as a new job. If reading them fails, nothing is stored: an import is complete or does not exist."""
        job = await self._send(messages.StartImport(source, self._settings.imports.open))
        try:
            job = await self._store(job, lines)
        except BaseException:
            with suppress(MatineeError, asyncio.CancelledError):
                await asyncio.shield(self._send(messages.RemoveImport(job.id)))
            raise
        self._wake.set()
        return job

    async def jobs(self) -> list[ImportJob]:
        return await self._send(messages.ListImports())

    async def build(self) -> BuildProgress | None:
        """The build of a new version of this catalogue, if one is under way."""
        return await self._send(messages.ReadBuild())

    async def job(self, id: str) -> ImportJob:
        """Raises a 404 if there is no such job, or no longer."""
        for job in await self.jobs():
            if job.id == id:
                return job
        raise RequestError(404, "there is no such import: GET /v1/imports lists those that are remembered")

    async def cancel(self, id: str) -> ImportJob:
        """What is written already stays. A job that is over stays as it is."""
        for _ in range(_TRIES):
            job = await self.job(id)
            if job.is_over:
                return job
            over = job.model_copy(update={"status": "cancelled"})
            if await self._send(messages.SaveImport(over, tuple(range(job.next, job.chunks)))):
                return over
        raise ImportChangedError("the import is changing just now; send this again in a moment")

    async def _store(self, job: ImportJob, lines: AsyncIterator[Line]) -> ImportJob:
        limit = self._settings.max_body_bytes
        chunk: list[bytes] = []
        size = stored = 0
        beat = time.monotonic()

        async def flush() -> None:
            nonlocal job, chunk, size, stored, beat
            await self._send(messages.AddChunk(job.id, job.chunks, b"\n".join(chunk)))
            stored += size
            if stored > self._settings.imports.max_bytes:
                raise RequestError(
                    413, f"the import is above {self._settings.imports.max_bytes} bytes (serving.imports.max_bytes); send several"
                )
            job = job.model_copy(update={"chunks": job.chunks + 1, "total": job.total + len(chunk)})
            chunk, size = [], 0
            if time.monotonic() - beat > _BEAT_S:
                job, beat = await self._save(job), time.monotonic()

        async for line in lines:
            # An empty one stands for a line that was too long.
            content = line.content or b""
            chunk.append(b"%d %b" % (line.number, content if is_utf8(content) else NOT_UTF8))
            size += len(chunk[-1])
            if len(chunk) == CHUNK or size > limit:
                await flush()
        if chunk:
            await flush()
        status: Status = "queued" if job.chunks else "done"
        return await self._save(job.model_copy(update={"status": status}))

    async def _save(self, job: ImportJob) -> ImportJob:
        if not await self._send(messages.SaveImport(job)):
            raise ImportChangedError("the import was cancelled, or given up because its lines came too slowly; send it again")
        return job.model_copy(update={"version": job.version + 1})

    # the work

    async def _run(self) -> None:
        reason = None
        while True:
            try:
                worked = await self.work()
                reason = None
            except MatineeError as error:
                # A job says that it waits, and why to keys of scope admin alone. A try every few seconds is no news.
                if str(error) != reason:
                    log.warning("imports wait: %s", error)
                worked, reason = False, str(error)
            except Exception:
                # Nobody awaits this task, and its end would leave all imports waiting.
                log.exception("an import failed; it is tried again")
                worked = False
            if not worked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._idle_s):
                        await self._wake.wait()
                self._wake.clear()

    async def work(self) -> bool:
        """Work on the first open job until it is over or stuck. False if there is no job to work on now."""
        jobs = await self._send(messages.ListImports(unfinished=True))
        for job in jobs:
            if job.status == "receiving":
                await self._give_up(job)
        first = [job for job in jobs if job.status != "receiving"][:1]
        if not first:
            return False
        [job] = first
        if job.owner not in ("", self._me) and not self._is_stale(job, self._expiry_s):
            return False
        mine = job.model_copy(update={"owner": self._me, "status": "running"})
        if not await self._send(messages.SaveImport(mine)):
            return False
        following: ImportJob | None = mine.model_copy(update={"version": mine.version + 1})
        while following is not None and following.status == "running":
            following = await self._write_chunk(following)
        return True

    def _is_stale(self, job: ImportJob, expiry_s: float) -> bool:
        """Whether the record has stayed the same for `expiry_s`, as long as this gateway knows it."""
        version, since = self._seen.get(job.id, (-1, 0.0))
        if version != job.version:
            self._seen = {**dict([*self._seen.items()][-100:]), job.id: (job.version, time.monotonic())}
            return False
        return time.monotonic() - since > expiry_s

    async def _give_up(self, job: ImportJob) -> None:
        """End a job whose lines come no more: their gateway has died, and its client with it knows of no job."""
        if self._is_stale(job, self._expiry_s + 2 * self._settings.bulk.stall_s):
            await self._send(messages.RemoveImport(job.id))

    async def _write_chunk(self, job: ImportJob) -> ImportJob | None:
        """The job after its next chunk; None if another gateway has it now, or if it is over. Raises the error that stops it."""
        start = time.monotonic()
        content = await self._send(messages.ReadChunk(job.id, job.next))
        if content is None:
            return await self._record_chunk(job, {"status": "cancelled", "trouble": LOST})
        items, usable, rejects = await asyncio.to_thread(self._parse, content)
        try:
            written = len(items)
            if items:
                ends = start + self._bulk.settings.deadline_s
                done, _ = await self._bulk.retry(lambda context: self._writes.write(items, context, job.asked), ends)
                written = done.count
        except MatineeError as error:
            await self._send(messages.SaveImport(job.model_copy(update={"trouble": str(error)})))
            raise
        skipped = len(items) - written
        return await self._record_chunk(
            job,
            {
                "next": job.next + 1,
                "lines": job.lines + usable + len(rejects),
                "written": job.written + usable - skipped,
                "skipped": job.skipped + skipped,
                "rejected": job.rejected + len(rejects),
                "rejects": (*job.rejects, *rejects)[:MAX_REJECTS],
                "spent_s": job.spent_s + time.monotonic() - start,
                "trouble": None,
            },
        )

    def _parse(self, content: bytes) -> tuple[dict[str, Item], int, list[RejectedLine]]:
        """Items by index id, the number of usable lines, and the rejected lines. Of several lines with one id, the last counts."""
        items: dict[str, Item] = {}
        usable, rejects = 0, list[RejectedLine]()
        for stored in content.split(b"\n"):
            number, _, line = stored.partition(b" ")
            item = parse(Line(int(number), line or None), self._settings.max_body_bytes)
            if isinstance(item, RejectedLine):
                rejects.append(item)
            else:
                usable += 1
                items[self._writes.uid(item)] = item
        return items, usable, rejects

    async def _record_chunk(self, job: ImportJob, change: dict[str, object]) -> ImportJob | None:
        """The job once its chunk is counted. Whoever counts it first does, also where another gateway has claimed the job meanwhile."""
        status = "done" if change.get("next") == job.chunks else "running"
        for _ in range(_TRIES):
            after = job.model_copy(update={"status": status, **change})
            if await self._send(messages.SaveImport(after, (job.next,))):
                return after.model_copy(update={"version": after.version + 1})
            stored = next((other for other in await self._send(messages.ListImports(unfinished=True)) if other.id == job.id), None)
            if stored is None or stored.status != "running" or stored.next != job.next:
                return None
            job = stored
        return None

    async def _send(self, message: messages.RetrieverMessage[Result]) -> Result:
        ends = time.monotonic() + self._bulk.settings.deadline_s
        result, _ = await self._bulk.retry(lambda context: self._gateway.retrieve(message, context), ends)
        return result
