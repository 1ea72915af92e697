"""The server engine: each version of a catalogue is a Qdrant collection `<catalogue>.<version>`, reached by the async client.

The alias `<catalogue>` names the current version and `<catalogue>.previous` the one before, so that one call moves both in one step.
A version's manifest is its collection's metadata, written when the build is finished. Every call has a deadline. Does not retry and
does not cache: a server that is down is the caller's 503. `prune` removes unfinished builds: who calls it must hold the lease.
"""

import asyncio
import math
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from matinee.errors import IndexAbsentError, IndexUnavailableError, SettingsError
from matinee.filters import ItemFilter
from matinee.index.conditions import not_deleted_condition, scroll_condition, valid_ids
from matinee.index.item_vector import completed
from matinee.index.lease import Held, renewed
from matinee.index.qdrant import query as translate
from matinee.index.qdrant.imports import QdrantImports
from matinee.index.records import to_hit, to_point
from matinee.index.types import TEXT, FacetCount, Hit, Manifest, Point, Scroll, Search
from matinee.settings.addresses import is_inside
from matinee.settings.index import IndexSettings

_MANIFEST = "matinee_manifest"
_PATIENCE_S = 60.0
T = TypeVar("T")


class Connection:
    """A client and how long its calls may take. Turns whatever they fail with into errors that name the server and what to do."""

    def __init__(self, settings: IndexSettings, client: AsyncQdrantClient | None = None) -> None:
        self.settings = settings
        self.owned = client is None
        self.client = client or _connect(settings)
        # The client's local mode has no indexes, neither over payloads nor over vectors, and warns where one is spoken of.
        self.local = ":memory:" in self.client.init_options.values() or self.client.init_options.get("path") is not None
        self.where = ":memory:" if self.local else settings.url or "the given client"

    async def __call__(self, call: Awaitable[T], *, patient: bool = False) -> T:
        """The answer of a call; writes and administration are `patient`: they are slower by nature, and nobody waits for them."""
        limit = max(_PATIENCE_S, self.settings.timeout_s) if patient else self.settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                return await call
        except TimeoutError as error:
            raise IndexUnavailableError(f"the Qdrant server at {self.where} did not answer within {limit:g} s") from error
        except (ApiException, grpc.RpcError) as error:
            raise self._explained(error) from error

    def _explained(self, error: ApiException | grpc.RpcError) -> Exception:
        status, text = _status(error)
        if "Vector dimension error" in text or "vector name error" in text:
            return ValueError(text)
        if status in {401, 403}:
            return IndexUnavailableError(f"the Qdrant server at {self.where} refused the key: set index.api_key ({text})")
        if status == 404:
            return IndexAbsentError(f"the Qdrant server at {self.where} has no such index version: {text}")
        if status is None:
            return IndexUnavailableError(f"the Qdrant server at {self.where} can't be reached: {text}. Check index.url, and that it runs")
        return IndexUnavailableError(f"the Qdrant server at {self.where} answered {status}: {text}")


class QdrantIndex:
    """One version's collection. Shares its store's connection, so closing it closes nothing."""

    def __init__(self, connection: Connection, collection: str, manifest: Manifest) -> None:
        self.manifest = manifest
        self.approximate = not connection.local
        self._call = connection
        self._client = connection.client
        self._name = collection

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        local = self._call.local
        requests = [
            translate.request(search, self.manifest, exact=search.exact and not local, settings=None if local else self._call.settings)
            for search in searches
        ]
        if not requests:
            return []
        answers = await self._call(self._client.query_batch_points(self._name, requests, timeout=self._seconds))
        return [translate.hits(search, answer.points) for search, answer in zip(searches, answers, strict=True)]

    async def retrieve(self, ids: Sequence[str], *, vectors: bool = False) -> list[Hit | None]:
        records = await self._fetch(ids, [TEXT] if vectors else False)
        hits = {hit.id: hit for hit in map(to_hit, records)}
        return [hits.get(id) for id in ids]

    async def present(self, ids: Sequence[str]) -> set[str]:
        records = await self._fetch(ids, False, payload=["deleted"])
        return {str(record.id) for record in records if not (record.payload or {}).get("deleted")}

    async def scroll(self, scroll: Scroll) -> tuple[list[Hit], str | None]:
        page, following = await self._call(
            self._client.scroll(
                self._name,
                scroll_filter=translate.filter_of(scroll_condition(scroll, self.manifest.declared)),
                limit=scroll.limit,
                offset=scroll.after,
                with_payload=True,
                with_vectors=[TEXT] if scroll.vectors else False,
                timeout=self._seconds,
            )
        )
        return [to_hit(record) for record in page], None if following is None else str(following)

    async def points(self, ids: Sequence[str]) -> list[Point]:
        return [to_point(record) for record in await self._fetch(ids, True)]

    async def _fetch(self, ids: Sequence[str], vectors: bool | list[str], *, payload: bool | list[str] = True) -> list[models.Record]:
        valid = valid_ids(ids)
        if not valid:
            return []
        return await self._call(self._client.retrieve(self._name, valid, with_payload=payload, with_vectors=vectors, timeout=self._seconds))

    async def upsert(self, points: Sequence[Point]) -> None:
        for batch in translate.batches(
            [translate.engine_point(point) for point in completed(points, self.manifest)], self.manifest.dimensions
        ):
            await self._call(self._client.upsert(self._name, batch, wait=True), patient=True)

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        call = self._client.count(self._name, count_filter=self._not_deleted(filter), exact=True, timeout=self._seconds)
        return (await self._call(call)).count

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50) -> list[FacetCount]:
        field = self.manifest.payload_key(key)
        call = self._client.facet(self._name, field, facet_filter=self._not_deleted(filter), limit=limit, exact=True, timeout=self._seconds)
        return [(hit.value, hit.count) for hit in (await self._call(call)).hits]

    def _not_deleted(self, filter: ItemFilter) -> models.Filter | None:
        return translate.filter_of(not_deleted_condition(filter, self.manifest.declared))

    async def max_revision(self) -> int:
        newest = models.OrderByQuery(order_by=models.OrderBy(key="revision", direction=models.Direction.DESC))
        call = self._client.query_points(self._name, query=newest, limit=1, with_payload=["revision"], timeout=self._seconds)
        points = (await self._call(call)).points
        return int((points[0].payload or {})["revision"]) if points else 0

    async def together(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await work()

    def check_health(self, hang_s: float) -> None:
        """Nothing to check: each call has a deadline."""

    async def close(self) -> None:
        """Nothing to give back: the connection is the store's."""

    @property
    def _seconds(self) -> int:
        # So that the server too stops working on what nobody waits for any more.
        return math.ceil(self._call.settings.timeout_s)


class QdrantStore:
    """The collections and the two aliases of one catalogue."""

    def __init__(self, settings: IndexSettings, catalogue: str, *, client: AsyncQdrantClient | None = None) -> None:
        self._call = Connection(settings, client)
        self._client = self._call.client
        self._catalogue = catalogue
        self._alias, self._alias_before, self._lease = catalogue, f"{catalogue}.previous", f"{catalogue}.lease"
        self._imports = f"{catalogue}.imports"

    async def versions(self) -> list[Manifest]:
        manifests = await asyncio.gather(*map(self._manifest_of, await self._collections()))
        return sorted((manifest for manifest in manifests if manifest), key=lambda manifest: manifest.version, reverse=True)

    async def current(self) -> Manifest | None:
        return await self._aliased(self._alias)

    async def previous(self) -> Manifest | None:
        return await self._aliased(self._alias_before)

    async def create(self, manifest: Manifest) -> QdrantIndex:
        name = self._name(manifest.version)
        if await self._call(self._client.collection_exists(name)):
            if await self._manifest_of(name):
                raise IndexUnavailableError(f"the index version {manifest.version} exists already: build under a new name")
            await self._call(self._client.delete_collection(name), patient=True)
        await self._call(self._client.create_collection(name, **translate.collection(manifest, self._call.settings)), patient=True)
        for field, schema in translate.payload_indexes(manifest).items() if not self._call.local else ():
            await self._call(self._client.create_payload_index(name, field, field_schema=schema, wait=True), patient=True)
        return QdrantIndex(self._call, name, manifest)

    async def finish(self, manifest: Manifest) -> None:
        name = self._name(manifest.version)
        if not await self._call(self._client.collection_exists(name)):
            raise IndexAbsentError(f"there is no build of version {manifest.version} on {self._call.where}")
        metadata = {_MANIFEST: manifest.model_dump(mode="json")}
        await self._call(self._client.update_collection(name, metadata=metadata), patient=True)

    def imports(self) -> QdrantImports:
        return QdrantImports(self._client, self._call, self._imports)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Held]:
        async with renewed(_LeaseCollection(self._call, self._lease), self._catalogue) as held:
            yield held

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
            raise IndexAbsentError(f"the catalogue {self._catalogue!r} has no previous index version to go back to")
        await self._mark(aliases, current=previous, previous=aliases.get(self._alias))
        return manifest

    async def prune(self, keep: int) -> list[str]:
        kept = {*(self._name(manifest.version) for manifest in (await self.versions())[:keep]), *(await self._aliases()).values()}
        doomed = [name for name in await self._collections() if name not in kept]
        for name in doomed:
            await self._call(self._client.delete_collection(name), patient=True)
        return [name.removeprefix(f"{self._catalogue}.") for name in doomed]

    async def close(self) -> None:
        if self._call.owned:
            await self._client.close()

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

    async def _aliased(self, alias: str) -> Manifest | None:
        name = (await self._aliases()).get(alias)
        return await self._manifest_of(name) if name else None

    async def _mark(self, aliases: dict[str, str], *, current: str, previous: str | None) -> None:
        operations: list[Any] = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in aliases]
        for alias, name in ((self._alias, current), (self._alias_before, previous)):
            if name is not None:
                created = models.CreateAlias(collection_name=name, alias_name=alias)
                operations.append(models.CreateAliasOperation(create_alias=created))
        await self._call(self._client.update_collection_aliases(operations), patient=True)

    async def _manifest(self, version: str) -> Manifest:
        name = self._name(version)
        manifest = await self._manifest_of(name) if await self._call(self._client.collection_exists(name)) else None
        if manifest is None:
            raise IndexAbsentError(
                f"there is no finished index version {version!r} of the catalogue {self._catalogue!r} on {self._call.where}: "
                "run `matinee ingest` to build one, `matinee index` to see what is there"
            )
        return manifest

    async def _manifest_of(self, collection: str) -> Manifest | None:
        """What the collection's metadata says; None for an unfinished build."""
        metadata = (await self._call(self._client.get_collection(collection))).config.metadata or {}
        if _MANIFEST not in metadata:
            return None
        try:
            return Manifest.model_validate(metadata[_MANIFEST])
        except ValidationError as error:
            raise IndexUnavailableError(
                f"the collection {collection} on {self._call.where} has an unreadable manifest ({error.error_count()} faults): "
                "delete it and build the version again"
            ) from error


class _LeaseCollection:
    """An empty collection, whose metadata is the record of a lease. The server creates it once, whoever asks."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._call = connection
        self._client = connection.client
        self._name = name

    async def create(self, values: dict[str, Any]) -> bool:
        try:
            await self._call(self._client.create_collection(self._name, vectors_config={}, metadata=values), patient=True)
        except (IndexUnavailableError, ValueError) as error:
            # The server's 409, and the local mode's word for it.
            if "already exists" in str(error):
                return False
            raise
        return True

    async def read(self) -> dict[str, Any] | None:
        if not await self._call(self._client.collection_exists(self._name)):
            return None
        try:
            return (await self._call(self._client.get_collection(self._name))).config.metadata or {}
        except IndexAbsentError:
            return None

    async def update(self, values: dict[str, Any]) -> None:
        await self._call(self._client.update_collection(self._name, metadata=values), patient=True)

    async def remove(self, id: str) -> None:
        # The server deletes without a condition. Whoever is hit between these two lines learns it from `held`.
        if (found := await self.read()) is not None and found.get("id", "") == id:
            await self._call(self._client.delete_collection(self._name), patient=True)


def _connect(settings: IndexSettings) -> AsyncQdrantClient:
    key = settings.api_key.get_secret_value() if settings.api_key else None
    verify: bool | ssl.SSLContext = settings.tls_verify
    if settings.tls_ca is not None and settings.tls_verify:
        try:
            verify = ssl.create_default_context(cafile=settings.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"index.tls_ca {settings.tls_ca} is no file of certificates: {error}") from None
        # The client has no argument for it, and gRPC reads it when it first connects.
        os.environ.setdefault("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(settings.tls_ca))
    # A server of the cluster stands behind no proxy, and the environment's leads out of it.
    direct = is_inside(settings.url or "")
    return AsyncQdrantClient(
        url=settings.url,
        api_key=key,
        prefer_grpc=settings.grpc,
        timeout=math.ceil(max(_PATIENCE_S, settings.timeout_s)),
        verify=verify,
        trust_env=not direct,
        grpc_options={"grpc.enable_http_proxy": 0} if direct else None,
        check_compatibility=False,  # it would ask the server from a thread, outside of every deadline
    )


def _status(error: ApiException | grpc.RpcError) -> tuple[int | None, str]:
    """The HTTP status (None: no answer at all) and the text of a failed call."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code, error.content.decode(errors="replace")[:500]
    if isinstance(error, grpc.Call):
        codes = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.NOT_FOUND: 404}
        unreachable = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        return None if unreachable else codes.get(error.code(), 500), str(error.details())
    return None, str(error) or type(error).__name__
