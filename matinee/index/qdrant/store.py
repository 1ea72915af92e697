"""The server engine: each version of a catalogue is a Qdrant collection `<catalogue>.<version>`, reached by the async client.

The alias `<catalogue>` names the current version and `<catalogue>.previous` the one before, so that one call moves both in one step.
A version's manifest is its collection's metadata, written when the build is finished and the server has indexed it. Every call has a
deadline. Does not retry and does not cache: a server that is down is the caller's 503. `prune` removes unfinished builds: who calls it must
hold the lease.
"""

import asyncio

from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models

from matinee.errors import IndexUnavailableError
from matinee.index.absence import no_build, no_previous, no_version
from matinee.index.qdrant import collection
from matinee.index.qdrant import query as translate
from matinee.index.qdrant.index import QdrantIndex
from matinee.index.qdrant.server_store import ServerStore
from matinee.index.types import Manifest
from matinee.settings.index import IndexSettings

_MANIFEST = "matinee_manifest"


class QdrantStore(ServerStore):
    """The collections and the two aliases of one catalogue."""

    def __init__(self, settings: IndexSettings, catalogue: str, *, client: AsyncQdrantClient | None = None) -> None:
        super().__init__(settings, catalogue, client=client)
        self._alias, self._alias_before = catalogue, f"{catalogue}.previous"

    async def versions(self) -> list[Manifest]:
        manifests = await asyncio.gather(*map(self._manifest_of, await self._collections()))
        return sorted((manifest for manifest in manifests if manifest), key=lambda manifest: manifest.version, reverse=True)

    async def current(self) -> Manifest | None:
        return await self._read_manifest(self._alias)

    async def previous(self) -> Manifest | None:
        return await self._read_manifest(self._alias_before)

    async def create(self, manifest: Manifest) -> QdrantIndex:
        name = self._name(manifest.version)
        if await self._call(self._client.collection_exists(name)):
            if await self._manifest_of(name):
                raise IndexUnavailableError(f"the index version {manifest.version} exists already: build under a new name")
            await self._call(self._client.delete_collection(name), patient=True)
        await collection.create(self._call, name, manifest, translate.payload_indexes(manifest))
        return QdrantIndex(self._call, name, manifest)

    async def resume(self, manifest: Manifest) -> QdrantIndex:
        return QdrantIndex(self._call, await self._begun(manifest), manifest)

    async def finish(self, manifest: Manifest) -> None:
        name = await self._begun(manifest)
        await collection.complete(self._call, name)
        metadata = {_MANIFEST: manifest.model_dump(mode="json")}
        await self._call(self._client.update_collection(name, metadata=metadata), patient=True)

    async def open(self, version: str) -> QdrantIndex:
        return QdrantIndex(self._call, self._name(version), await self._manifest(version))

    async def switch(self, version: str) -> None:
        await self._manifest(version)
        aliases = await self._aliases()
        if aliases.get(self._alias) != self._name(version):
            await self._mark(aliases, current=self._name(version), previous=aliases.get(self._alias))

    async def rollback(self) -> Manifest:
        aliases = await self._aliases()
        previous = aliases.get(self._alias_before)
        manifest = await self._manifest_of(previous) if previous else None
        if previous is None or manifest is None:
            raise no_previous(self._catalogue)
        await self._mark(aliases, current=previous, previous=aliases.get(self._alias))
        return manifest

    async def prune(self, keep: int) -> list[str]:
        kept = {*(self._name(manifest.version) for manifest in (await self.versions())[:keep]), *(await self._aliases()).values()}
        doomed = [name for name in await self._collections() if name not in kept]
        for name in doomed:
            await self._call(self._client.delete_collection(name), patient=True)
        return [name.removeprefix(f"{self._catalogue}.") for name in doomed]

    async def destroy(self) -> None:
        async with self.lease():
            if aliases := await self._aliases():
                await self._mark(aliases, current=None, previous=None)
            for name in [*await self._collections(), self._imports]:
                await self._delete_collection(name)

    async def _begun(self, manifest: Manifest) -> str:
        """The collection of a version that was begun."""
        name = self._name(manifest.version)
        if not await self._call(self._client.collection_exists(name)):
            raise no_build(manifest, self._where)
        return name

    def _name(self, version: str) -> str:
        return f"{self._catalogue}.{version}"

    async def _collections(self) -> list[str]:
        collections = (await self._call(self._client.get_collections())).collections
        names = (entry.name for entry in collections if entry.name.startswith(f"{self._catalogue}."))
        return sorted(name for name in names if name not in (self._lease, self._imports))

    async def _aliases(self) -> dict[str, str]:
        aliases = (await self._call(self._client.get_aliases())).aliases
        mine = {self._alias, self._alias_before}
        return {entry.alias_name: entry.collection_name for entry in aliases if entry.alias_name in mine}

    async def _read_manifest(self, alias: str) -> Manifest | None:
        name = (await self._aliases()).get(alias)
        return await self._manifest_of(name) if name else None

    async def _mark(self, aliases: dict[str, str], *, current: str | None, previous: str | None) -> None:
        operations: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in aliases
        ]
        for alias, name in ((self._alias, current), (self._alias_before, previous)):
            if name is not None:
                created = models.CreateAlias(collection_name=name, alias_name=alias)
                operations.append(models.CreateAliasOperation(create_alias=created))
        await self._call(self._client.update_collection_aliases(operations), patient=True)

    async def _manifest(self, version: str) -> Manifest:
        name = self._name(version)
        manifest = await self._manifest_of(name) if await self._call(self._client.collection_exists(name)) else None
        if manifest is None:
            raise no_version(version, self._catalogue, self._where)
        return manifest

    async def _manifest_of(self, name: str) -> Manifest | None:
        """What the collection's metadata says; None for an unfinished build."""
        metadata = (await self._call(self._client.get_collection(name))).config.metadata or {}
        if _MANIFEST not in metadata:
            return None
        try:
            return Manifest.model_validate(metadata[_MANIFEST])
        except ValidationError as error:
            raise IndexUnavailableError(
                f"the collection {name} on {self._call.where} has an unreadable manifest ({error.error_count()} faults): "
                "delete it and build the version again"
            ) from error
