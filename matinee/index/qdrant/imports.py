"""The imports of a catalogue on a Qdrant server: one collection of points without vectors, a point a job and one a chunk.

Catalogues that share a collection for their items share one for their imports, too: there, each point carries its catalogue.
A job is changed under the condition that it still has the version that was read: the server applies the changes of a point in order.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from qdrant_client import models

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.index.imports import ImportJob
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.tenant import TENANT

_PAGE = 100

SHARED_IMPORTS = "_matinee_imports"
"""The collection of those that share one. No catalogue's name begins with an underscore."""


class QdrantImports:
    """Jobs and chunks as points of the collection `name`, which the first job makes. `tenant`: whose they are in a shared one."""

    def __init__(self, call: Connection, name: str, tenant: str | None = None) -> None:
        self._call = call
        self._client = call.client
        self._name = name
        self._whose = {} if tenant is None else {TENANT: tenant}

    async def jobs(self) -> list[ImportJob]:
        if not await self._call(self._client.collection_exists(self._name)):
            return []
        imports: list[ImportJob] = []
        after: Any = None
        while True:
            try:
                page, after = await self._call(
                    self._client.scroll(
                        self._name, scroll_filter=_matching(kind="job", **self._whose), limit=_PAGE, offset=after, with_payload=True
                    )
                )
            except IndexAbsentError:
                return []
            imports += [_job(record.payload or {}) for record in page]
            if after is None:
                return sorted(imports, key=lambda job: (job.asked, job.id))

    async def save(self, job: ImportJob) -> bool:
        stored = job.model_copy(update={"version": job.version + 1})
        # The mark shows whose change came first.
        mark = uuid.uuid4().hex
        payload = {"kind": "job", "id": job.id, "version": stored.version, "mark": mark, "job": stored.model_dump_json()}
        if job.version == 0:
            await self._create()
            await self._upsert(_job_point(job.id), payload)
            return True
        condition = models.Filter(
            must=[
                models.HasIdCondition(has_id=[_job_point(job.id)]),
                models.FieldCondition(key="version", match=models.MatchValue(value=job.version)),
            ]
        )
        await self._call(
            self._client.set_payload(self._name, payload, points=condition, wait=True, ordering=models.WriteOrdering.STRONG), patient=True
        )
        records = await self._call(self._client.retrieve(self._name, [_job_point(job.id)], with_payload=["mark"]))
        return bool(records) and (records[0].payload or {}).get("mark") == mark

    async def _create(self) -> None:
        if await self._call(self._client.collection_exists(self._name)):
            return
        try:
            await self._call(self._client.create_collection(self._name, vectors_config={}), patient=True)
        except (IndexUnavailableError, ValueError) as error:
            # Another gateway's job came first: the server's 409, and the local mode's word for it.
            if "already exists" not in str(error):
                raise
        if self._whose and not self._call.local:
            # Without it, each look for jobs would read the chunks of every catalogue.
            keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            await self._call(self._client.create_payload_index(self._name, TENANT, field_schema=keyword, wait=True), patient=True)

    async def _upsert(self, point: str, payload: dict[str, Any]) -> None:
        points = [models.PointStruct(id=point, vector={}, payload=payload | self._whose)]
        await self._call(self._client.upsert(self._name, points, wait=True), patient=True)

    async def add(self, id: str, number: int, lines: bytes) -> None:
        await self._upsert(_chunk_point(id, number), {"kind": "chunk", "id": id, "lines": lines.decode()})

    async def chunk(self, id: str, number: int) -> bytes | None:
        records = await self._call(self._client.retrieve(self._name, [_chunk_point(id, number)], with_payload=True))
        return (records[0].payload or {})["lines"].encode() if records else None

    async def drop(self, id: str, numbers: Sequence[int]) -> None:
        points: Any = [_chunk_point(id, number) for number in numbers]
        await self._call(self._client.delete(self._name, models.PointIdsList(points=points), wait=True), patient=True)

    async def remove(self, id: str) -> None:
        await self._delete(_matching(id=id))

    async def forget(self) -> None:
        """Remove all jobs of the catalogue."""
        if await self._call(self._client.collection_exists(self._name)):
            if self._whose:
                await self._delete(_matching(**self._whose))
            else:
                await self._call(self._client.delete_collection(self._name), patient=True)

    async def _delete(self, filter: models.Filter) -> None:
        await self._call(self._client.delete(self._name, models.FilterSelector(filter=filter), wait=True), patient=True)


def _job(payload: dict[str, Any]) -> ImportJob:
    try:
        return ImportJob.model_validate_json(payload["job"])
    except (KeyError, ValidationError) as error:
        raise IndexUnavailableError("an import on the Qdrant server is not readable: delete its point") from error


def _matching(**values: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in values.items()])


def _job_point(id: str) -> str:
    return str(uuid.UUID(id))


def _chunk_point(id: str, number: int) -> str:
    return str(uuid.uuid5(uuid.UUID(id), str(number)))
