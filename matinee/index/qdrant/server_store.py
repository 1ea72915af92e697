"""What both stores on a Qdrant server have: the connection, a catalogue's imports, and its lease. Knows no versions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient

from matinee.index.lease import Held, hold_lease
from matinee.index.progress import BuildProgress, read_progress
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.imports import QdrantImports
from matinee.index.qdrant.lease import LeaseCollection
from matinee.settings.index import IndexSettings

_PROGRESS = "progress"


class ServerStore:
    """One catalogue on a server."""

    def __init__(self, settings: IndexSettings, catalogue: str, *, client: AsyncQdrantClient | None = None) -> None:
        self._call = Connection(settings, client)
        self._client = self._call.client
        self._settings = settings
        self._catalogue = catalogue
        self._where = f"on {self._call.where}"
        self._lease, self._imports = f"{catalogue}.lease", f"{catalogue}.imports"

    def imports(self) -> QdrantImports:
        return QdrantImports(self._call, self._imports)

    async def lease_mark(self) -> str | None:
        values = await LeaseCollection(self._call, self._lease).read()
        return None if values is None else f"{values.get('id')} {values.get('renewed')}"

    async def note_build(self, progress: BuildProgress) -> None:
        await LeaseCollection(self._call, self._lease).update({_PROGRESS: progress.model_dump_json()})

    async def build_progress(self) -> BuildProgress | None:
        values = await LeaseCollection(self._call, self._lease).read()
        text = (values or {}).get(_PROGRESS)
        return None if text is None else read_progress(str(text))

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Held]:
        async with hold_lease(LeaseCollection(self._call, self._lease), self._catalogue) as held:
            yield held

    async def close(self) -> None:
        await self._call.close()

    async def _delete_collection(self, name: str) -> None:
        """Does nothing where there is none."""
        if await self._call(self._client.collection_exists(name)):
            await self._call(self._client.delete_collection(name), patient=True)
