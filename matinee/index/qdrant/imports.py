"""The imports of a catalogue on a Qdrant server: one collection of records, one for each job and one for each chunk.

Catalogues that share a collection for their items share one for their imports, too.
"""

import uuid
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from matinee.errors import IndexUnavailableError
from matinee.index.imports import ImportJob
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.record_collection import RecordCollection

SHARED_IMPORTS = "_matinee_imports"
"""The collection of those that share one. No catalogue's name begins with an underscore."""


class QdrantImports:
    """Jobs and chunks as records of the collection `name`, which the first job makes; of one `tenant` in a shared one."""

    def __init__(self, call: Connection, name: str, tenant: str | None = None) -> None:
        self._records = RecordCollection(call, name, tenant)

    async def jobs(self) -> list[ImportJob]:
        jobs = map(_job, await self._records.read_all(kind="job"))
        return sorted(jobs, key=lambda job: (job.asked, job.id))

    async def save(self, job: ImportJob) -> bool:
        stored = job.model_copy(update={"version": job.version + 1})
        record = {"kind": "job", "id": job.id, "version": stored.version, "job": stored.model_dump_json()}
        if job.version == 0:
            return await self._records.add(_job_point(job.id), record)
        return await self._records.change(_job_point(job.id), record, version=job.version)

    async def add(self, id: str, number: int, lines: bytes) -> None:
        await self._records.put(_chunk_point(id, number), {"kind": "chunk", "id": id, "lines": lines.decode()})

    async def chunk(self, id: str, number: int) -> bytes | None:
        record = await self._records.read(_chunk_point(id, number))
        return None if record is None else str(record["lines"]).encode()

    async def drop(self, id: str, numbers: Sequence[int]) -> None:
        await self._records.remove([_chunk_point(id, number) for number in numbers])

    async def remove(self, id: str) -> None:
        await self._records.remove_all(id=id)

    async def forget(self) -> None:
        """Remove all jobs of the catalogue."""
        await self._records.drop()


def _job(record: Mapping[str, object]) -> ImportJob:
    try:
        return ImportJob.model_validate_json(str(record["job"]))
    except (KeyError, ValidationError) as error:
        raise IndexUnavailableError("an import on the Qdrant server is not readable: delete its point") from error


def _job_point(id: str) -> str:
    return str(uuid.UUID(id))


def _chunk_point(id: str, number: int) -> str:
    return str(uuid.uuid5(uuid.UUID(id), str(number)))
