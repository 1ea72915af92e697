"""A catalogue's versions where small catalogues share a collection: a version below a number of items lies in the shared collection of its
encoder, a larger one in a collection of its own.

The state of a catalogue (its versions with their manifests, which one is current and which was before) is one point of the registry's
collection, changed under the condition that it is still the one that was read. Words are weighed by how rare they are in the whole
collection, so in a shared one the BM25 scores of a catalogue depend a little on the others.
"""

import uuid
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError
from qdrant_client import AsyncQdrantClient, models

from matinee.errors import IndexUnavailableError
from matinee.index.absence import no_build, no_previous, no_version
from matinee.index.qdrant import collection, registry
from matinee.index.qdrant import query as translate
from matinee.index.qdrant.imports import SHARED_IMPORTS, QdrantImports
from matinee.index.qdrant.index import QdrantIndex
from matinee.index.qdrant.record_collection import RecordCollection
from matinee.index.qdrant.server_store import ServerStore
from matinee.index.qdrant.tenant import SHARED, TENANT, VERSION, Tenant, collection_name
from matinee.index.types import OWN_FIELDS, Manifest
from matinee.settings.index import IndexSettings

_TRIES = 5


class _Version(BaseModel):
    """Where a version lies. `manifest` is None while it is being built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collection: str
    shared: bool
    manifest: Manifest | None = None


class _State(BaseModel):
    """A catalogue's versions. `changes` counts the changes of this record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    changes: int = 0
    current: str | None = None
    previous: str | None = None
    versions: dict[str, _Version] = {}


class TenantStore(ServerStore):
    """The versions of one catalogue."""

    def __init__(self, settings: IndexSettings, catalogue: str, *, client: AsyncQdrantClient | None = None) -> None:
        super().__init__(settings, catalogue, client=client)
        self._states = RecordCollection(self._call, registry.NAME)
        self._point = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{catalogue}/versions"))

    async def versions(self) -> list[Manifest]:
        manifests = [version.manifest for version in (await self._state()).versions.values() if version.manifest is not None]
        return sorted(manifests, key=lambda manifest: manifest.version, reverse=True)

    async def current(self) -> Manifest | None:
        return self._marked_manifest(state := await self._state(), state.current)

    async def previous(self) -> Manifest | None:
        return self._marked_manifest(state := await self._state(), state.previous)

    async def create(self, manifest: Manifest) -> QdrantIndex:
        """In the shared collection, unless the manifest's count, or the current version's, says that it will be large."""
        state = await self._state()
        known = state.versions.get(manifest.version)
        if known is not None and known.manifest is not None:
            raise IndexUnavailableError(f"the index version {manifest.version} exists already: build under a new name")
        if known is not None:
            await self._delete(manifest.version, known)
        current = self._marked_manifest(state, state.current)
        items = max(manifest.count, 0 if current is None else current.count)
        shared = items < self._settings.catalogues.share_below
        name = collection_name(manifest) if shared else f"{self._catalogue}.{manifest.version}"
        version = _Version(collection=name, shared=shared)
        await self._create_collection(name, manifest, shared=shared)
        await self._change(lambda state: state.model_copy(update={"versions": state.versions | {manifest.version: version}}))
        return self._index(version, manifest)

    async def _create_collection(self, name: str, manifest: Manifest, *, shared: bool) -> None:
        schemas: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = dict(translate.payload_indexes(manifest))
        if shared:
            tenant = Tenant(self._catalogue, manifest.version)
            schemas = {key if key in OWN_FIELDS else tenant.key(key): schema for key, schema in schemas.items()}
            keyword = models.KeywordIndexType.KEYWORD
            schemas[TENANT] = models.KeywordIndexParams(type=keyword, is_tenant=True)
            schemas[VERSION] = models.KeywordIndexParams(type=keyword)
        await collection.create(self._call, name, manifest, schemas, shared=shared)

    async def resume(self, manifest: Manifest) -> QdrantIndex:
        return self._index(self._begun(await self._state(), manifest), manifest)

    def _begun(self, state: _State, manifest: Manifest) -> _Version:
        version = state.versions.get(manifest.version)
        if version is None:
            raise no_build(manifest, self._where)
        return version

    async def finish(self, manifest: Manifest) -> None:
        begun = self._begun(await self._state(), manifest)
        if not begun.shared:
            await collection.complete(self._call, begun.collection)

        def finish(state: _State) -> _State:
            version = self._begun(state, manifest)
            return state.model_copy(
                update={"versions": state.versions | {manifest.version: version.model_copy(update={"manifest": manifest})}}
            )

        await self._change(finish)

    async def open(self, version: str) -> QdrantIndex:
        found = (await self._state()).versions.get(version)
        if found is None or found.manifest is None:
            raise no_version(version, self._catalogue, self._where)
        return self._index(found, found.manifest)

    def imports(self) -> QdrantImports:
        return QdrantImports(self._call, SHARED_IMPORTS, self._catalogue)

    async def switch(self, version: str) -> None:
        def switch(state: _State) -> _State:
            if (found := state.versions.get(version)) is None or found.manifest is None:
                raise no_version(version, self._catalogue, self._where)
            return state if state.current == version else state.model_copy(update={"current": version, "previous": state.current})

        await self._change(switch)

    async def rollback(self) -> Manifest:
        def roll_back(state: _State) -> _State:
            if self._marked_manifest(state, state.previous) is None:
                raise no_previous(self._catalogue)
            return state.model_copy(update={"current": state.previous, "previous": state.current})

        state = await self._change(roll_back)
        manifest = self._marked_manifest(state, state.current)
        assert manifest is not None, "a mark is only set on a finished version"  # noqa: S101
        return manifest

    async def prune(self, keep: int) -> list[str]:
        state = await self._state()
        kept = {*(manifest.version for manifest in (await self.versions())[:keep]), state.current, state.previous}
        doomed = sorted(name for name in state.versions if name not in kept)
        for name in doomed:
            await self._delete(name, state.versions[name])
        return doomed

    async def destroy(self) -> None:
        async with self.lease():
            for name, version in (await self._state()).versions.items():
                await self._delete(name, version)
            # A Retriever that had not followed yet may have written to a version that was pruned, of another encoder too.
            for collection in (await self._call(self._client.get_collections())).collections:
                if collection.name.startswith(SHARED):
                    await RecordCollection(self._call, collection.name, self._catalogue).remove_all()
            await self._states.remove([self._point])
            await self.imports().forget()

    def _index(self, version: _Version, manifest: Manifest) -> QdrantIndex:
        tenant = Tenant(self._catalogue, manifest.version) if version.shared else None
        return QdrantIndex(self._call, version.collection, manifest, tenant)

    async def _delete(self, name: str, version: _Version) -> None:
        """The data first: what a kill leaves is an unfinished build that the next prune deletes."""

        def unfinish(state: _State) -> _State:
            marks = {mark: None for mark in ("current", "previous") if getattr(state, mark) == name}
            return state.model_copy(update={"versions": state.versions | {name: version.model_copy(update={"manifest": None})}, **marks})

        await self._change(unfinish)
        if version.shared:
            mine = translate.filter_of(Tenant(self._catalogue, name).condition(None)) or models.Filter()
            await RecordCollection(self._call, version.collection).remove(mine)
        else:
            await self._delete_collection(version.collection)
        await self._change(
            lambda state: state.model_copy(update={"versions": {other: one for other, one in state.versions.items() if other != name}})
        )

    @staticmethod
    def _marked_manifest(state: _State, name: str | None) -> Manifest | None:
        version = None if name is None else state.versions.get(name)
        return None if version is None else version.manifest

    # the state

    async def _state(self) -> _State:
        record = await self._states.read(self._point)
        if record is None:
            return _State()
        try:
            return _State.model_validate_json(str(record["versions"]))
        except (KeyError, ValidationError) as error:
            raise IndexUnavailableError(
                f"the versions of the catalogue {self._catalogue!r} on {self._call.where} are not readable: delete it, and ingest it again"
            ) from error

    async def _change(self, change: Callable[[_State], _State]) -> _State:
        """Apply a change to the state as it is now; once more where another process changed it meanwhile."""
        for _ in range(_TRIES):
            state = await self._state()
            changed = change(state)
            if changed == state:
                return state
            stored = changed.model_copy(update={"changes": state.changes + 1})
            if await self._replace(state, stored):
                return stored
        raise IndexUnavailableError(f"the versions of the catalogue {self._catalogue!r} are being changed by others: try again in a moment")

    async def _replace(self, before: _State, stored: _State) -> bool:
        record = {"changes": stored.changes, "versions": stored.model_dump_json()}
        if before.changes == 0:
            return await self._states.add(self._point, record)
        return await self._states.change(self._point, record, changes=before.changes)
