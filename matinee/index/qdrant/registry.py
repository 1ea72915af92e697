"""The registry of catalogues on a Qdrant server: one collection, a record for each catalogue.

Two catalogues that are added under one name at one moment can't both win, and a change applies to the record that was read.
"""

import uuid
from collections.abc import Callable, Mapping

from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient

from matinee.errors import CatalogueConflictError, IndexUnavailableError
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.record_collection import RecordCollection
from matinee.index.registry import CatalogueRecord, absent, check_free
from matinee.settings.index import IndexSettings

NAME = "_matinee_catalogues"
"""No catalogue's name begins with an underscore, so none of its collections has this name."""
_TRIES = 5


class QdrantRegistry:
    """The records of the collection `NAME`, which the first catalogue makes."""

    def __init__(self, settings: IndexSettings, *, client: AsyncQdrantClient | None = None) -> None:
        self._call = Connection(settings, client)
        self._records = RecordCollection(self._call, NAME)

    async def records(self) -> dict[str, CatalogueRecord]:
        # Beside the records lie the versions of catalogues that share a collection (`tenant_store`).
        found = [_read(record) for record in await self._records.read_all() if "versions" not in record]
        return {record.name: record for record in sorted(found, key=lambda record: record.name)}

    async def add(self, record: CatalogueRecord, most: int) -> None:
        check_free(record.name, await self.records(), most)
        if not await self._records.add(_point(record.name), {"record": record.model_dump_json()}):
            raise CatalogueConflictError(f"the catalogue {record.name!r} exists already: somebody else has just created it")

    async def update(self, name: str, change: Callable[[CatalogueRecord], CatalogueRecord]) -> CatalogueRecord:
        for _ in range(_TRIES):
            stored = await self._records.read(_point(name))
            if stored is None:
                raise absent(name)
            record = _read(stored)
            if (changed := change(record)) == record:
                return record
            if await self._records.change(_point(name), {"record": changed.model_dump_json()}, mark=str(stored["mark"])):
                return changed
        raise IndexUnavailableError(f"the catalogue {name!r} is being changed by others: try again in a moment")

    async def remove(self, name: str) -> None:
        await self._records.remove([_point(name)])

    async def close(self) -> None:
        await self._call.close()


def _point(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _read(record: Mapping[str, object]) -> CatalogueRecord:
    try:
        return CatalogueRecord.model_validate_json(str(record["record"]))
    except (KeyError, ValidationError) as error:
        raise IndexUnavailableError("a catalogue on the Qdrant server is not readable: delete its point") from error
