"""The registry of catalogues on a Qdrant server: one collection of points without vectors, a point a catalogue.

A record is changed under the condition that its point is still there. Two that are added under one name at one moment can't both win: the
mark of the point says whose it is.
"""

import uuid
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models

from matinee.errors import CatalogueConflictError, IndexAbsentError, IndexUnavailableError
from matinee.index.qdrant.connection import Connection
from matinee.index.registry import CatalogueRecord, absent, check_free
from matinee.settings.index import IndexSettings

NAME = "_matinee_catalogues"
"""No catalogue's name begins with an underscore, so none of its collections has this name."""
_PAGE = 100
_TRIES = 5


class QdrantRegistry:
    """The points of the collection `NAME`, which the first catalogue makes."""

    def __init__(self, settings: IndexSettings, *, client: AsyncQdrantClient | None = None) -> None:
        self._call = Connection(settings, client)
        self._client = self._call.client

    async def records(self) -> dict[str, CatalogueRecord]:
        if not await self._call(self._client.collection_exists(NAME)):
            return {}
        found: dict[str, CatalogueRecord] = {}
        after: Any = None
        while True:
            try:
                page, after = await self._call(self._client.scroll(NAME, limit=_PAGE, offset=after, with_payload=True))
            except IndexAbsentError:
                return {}
            for payload in (record.payload or {} for record in page):
                # Beside the records lie the versions of catalogues that share a collection (`tenant_store`).
                if "versions" not in payload:
                    entry = _read(payload)
                    found[entry.name] = entry
            if after is None:
                return dict(sorted(found.items()))

    async def add(self, record: CatalogueRecord, most: int) -> None:
        check_free(record.name, await self.records(), most)
        await create_collection(self._client, self._call)
        # The server inserts a point only where none has its id, whoever comes first.
        mark = uuid.uuid4().hex
        await self._upsert(record, mark, models.UpdateMode.INSERT_ONLY)
        stored = await self._call(self._client.retrieve(NAME, [_point(record.name)], with_payload=["mark"]))
        if not stored or (stored[0].payload or {}).get("mark") != mark:
            raise CatalogueConflictError(f"the catalogue {record.name!r} exists already: somebody else has just created it")

    async def update(self, name: str, change: Callable[[CatalogueRecord], CatalogueRecord]) -> CatalogueRecord:
        for _ in range(_TRIES):
            stored = await self._read(name)
            if stored is None:
                raise absent(name)
            record, mark = _read(stored), uuid.uuid4().hex
            if (changed := change(record)) == record:
                return record
            # Of a point that is gone, or that another process has changed meanwhile, it changes nothing.
            same = [models.FieldCondition(key="mark", match=models.MatchValue(value=stored["mark"]))]
            points = models.Filter(must=[models.HasIdCondition(has_id=[_point(name)]), *same])
            payload = {"mark": mark, "record": changed.model_dump_json()}
            call = self._client.set_payload(NAME, payload, points=points, wait=True, ordering=models.WriteOrdering.STRONG)
            await self._call(call, patient=True)
            after = await self._read(name)
            if after is not None and after["mark"] == mark:
                return changed
        raise IndexUnavailableError(f"the catalogue {name!r} is being changed by others: try again in a moment")

    async def _read(self, name: str) -> dict[str, Any] | None:
        if not await self._call(self._client.collection_exists(NAME)):
            return None
        records = await self._call(self._client.retrieve(NAME, [_point(name)], with_payload=True))
        return dict(records[0].payload or {}) if records else None

    async def remove(self, name: str) -> None:
        if await self._call(self._client.collection_exists(NAME)):
            await self._call(self._client.delete(NAME, models.PointIdsList(points=[_point(name)]), wait=True), patient=True)

    async def close(self) -> None:
        if self._call.owned:
            await self._client.close()

    async def _upsert(self, record: CatalogueRecord, mark: str, mode: models.UpdateMode) -> None:
        payload = {"mark": mark, "record": record.model_dump_json()}
        points = [models.PointStruct(id=_point(record.name), vector={}, payload=payload)]
        await self._call(self._client.upsert(NAME, points, wait=True, update_mode=mode), patient=True)


async def create_collection(client: AsyncQdrantClient, call: Connection) -> None:
    if await call(client.collection_exists(NAME)):
        return
    try:
        await call(client.create_collection(NAME, vectors_config={}), patient=True)
    except (IndexUnavailableError, ValueError) as error:
        # Another process came first: the server's 409, and the local mode's word for it.
        if "already exists" not in str(error):
            raise


def _point(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _read(payload: dict[str, Any]) -> CatalogueRecord:
    try:
        return CatalogueRecord.model_validate_json(payload["record"])
    except (KeyError, ValidationError) as error:
        raise IndexUnavailableError("a catalogue on the Qdrant server is not readable: delete its point") from error
