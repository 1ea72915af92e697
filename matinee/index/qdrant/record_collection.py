"""Small records on a Qdrant server: a collection of points without vectors, which the first write makes.

A record is changed under the condition that a part of it still is what was read: the server applies the changes of a point in order. Each
change leaves a mark, so of two at one moment each learns whether it came first. Does not know what the records say. Where catalogues share
a collection, each record carries its catalogue as the tenant.
"""

import uuid
from collections.abc import Mapping, Sequence

from qdrant_client import models

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.tenant import TENANT

_PAGE = 100


def matching(**values: str | int) -> models.Filter:
    """The points that have all of these values."""
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in values.items()])


class RecordCollection:
    """The records of the collection `name`, each the payload of a point; of one `tenant` in a shared one."""

    def __init__(self, call: Connection, name: str, tenant: str | None = None) -> None:
        self._call = call
        self._client = call.client
        self._name = name
        self._tenant = {} if tenant is None else {TENANT: tenant}

    async def exists(self) -> bool:
        return await self._call(self._client.collection_exists(self._name))

    async def read_all(self, **values: str | int) -> list[dict[str, object]]:
        """All records, or those that have all of these values."""
        records: list[dict[str, object]] = []
        after: models.ExtendedPointId | None = None
        if not await self.exists():
            return records
        while True:
            try:
                page, after = await self._call(
                    self._client.scroll(
                        self._name, scroll_filter=matching(**values, **self._tenant), limit=_PAGE, offset=after, with_payload=True
                    )
                )
            except IndexAbsentError:
                return []
            records += [record.payload or {} for record in page]
            if after is None:
                return records

    async def read(self, id: str) -> dict[str, object] | None:
        """The record of a point, None where there is none."""
        if not await self.exists():
            return None
        records = await self._call(self._client.retrieve(self._name, [id], with_payload=True))
        return dict(records[0].payload or {}) if records else None

    async def put(self, id: str, record: Mapping[str, object], mode: models.UpdateMode | None = None) -> None:
        """Write a record whatever is there. The collection must be there."""
        points = [models.PointStruct(id=id, vector={}, payload={**record, **self._tenant})]
        await self._call(self._client.upsert(self._name, points, wait=True, update_mode=mode), patient=True)

    async def add(self, id: str, record: Mapping[str, object]) -> bool:
        """Write a new record. False where there is one already, whoever came first: the server inserts a point once."""
        await self._create()
        mark = uuid.uuid4().hex
        await self.put(id, {**record, "mark": mark}, models.UpdateMode.INSERT_ONLY)
        return await self._has_mark(id, mark)

    async def change(self, id: str, record: Mapping[str, object], **same: str | int) -> bool:
        """Change a record that still has the values `same`. False where another change came first, or it is gone."""
        mark = uuid.uuid4().hex
        points = models.Filter(must=[models.HasIdCondition(has_id=[id]), matching(**same)])
        ordering = models.WriteOrdering.STRONG
        call = self._client.set_payload(self._name, {**record, "mark": mark}, points=points, wait=True, ordering=ordering)
        await self._call(call, patient=True)
        return await self._has_mark(id, mark)

    async def _has_mark(self, id: str, mark: str) -> bool:
        records = await self._call(self._client.retrieve(self._name, [id], with_payload=["mark"]))
        return bool(records) and (records[0].payload or {}).get("mark") == mark

    async def drop(self) -> None:
        """Delete the collection, or of a shared one the tenant's records. It may be gone already."""
        if self._tenant:
            await self.remove_all()
        elif await self.exists():
            await self._call(self._client.delete_collection(self._name), patient=True)

    async def remove_all(self, **values: str | int) -> None:
        """Remove all records, or those that have all of these values."""
        await self.remove(matching(**values, **self._tenant))

    async def remove(self, ids: Sequence[str] | models.Filter) -> None:
        """Remove records by the ids of their points, or those that pass a filter. Those that are gone already are no error."""
        if await self.exists():
            points = models.FilterSelector(filter=ids) if isinstance(ids, models.Filter) else models.PointIdsList(points=[*ids])
            await self._call(self._client.delete(self._name, points, wait=True), patient=True)

    async def _create(self) -> None:
        if await self.exists():
            return
        try:
            await self._call(self._client.create_collection(self._name, vectors_config={}), patient=True)
        except (IndexUnavailableError, ValueError) as error:
            # Another process came first: the server's 409, and the local mode's word for it.
            if "already exists" not in str(error):
                raise
        if self._tenant and not self._call.local:
            # Without it, each read of all records would read those of every catalogue.
            keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            await self._call(self._client.create_payload_index(self._name, TENANT, field_schema=keyword, wait=True), patient=True)
