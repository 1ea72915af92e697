"""The record of a lease (`matinee.index.lease`) on a Qdrant server."""

from collections.abc import Mapping

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.index.qdrant.connection import Connection


class LeaseCollection:
    """An empty collection, whose metadata is the record of a lease. The server creates it once, whoever asks."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._call = connection
        self._client = connection.client
        self._name = name

    async def create(self, values: Mapping[str, object]) -> bool:
        try:
            await self._call(self._client.create_collection(self._name, vectors_config={}, metadata=dict(values)), patient=True)
        except (IndexUnavailableError, ValueError) as error:
            # The server's 409, and the local mode's word for it.
            if "already exists" in str(error):
                return False
            raise
        return True

    async def read(self) -> dict[str, object] | None:
        if not await self._call(self._client.collection_exists(self._name)):
            return None
        try:
            return (await self._call(self._client.get_collection(self._name))).config.metadata or {}
        except IndexAbsentError:
            return None

    async def update(self, values: Mapping[str, object]) -> None:
        await self._call(self._client.update_collection(self._name, metadata=dict(values)), patient=True)

    async def remove(self, id: str) -> None:
        # The server deletes without a condition. Whoever is hit between these two lines learns it from `held`.
        if (record := await self.read()) is not None and record.get("id", "") == id:
            await self._call(self._client.delete_collection(self._name), patient=True)
