"""One index version on the server engine: a Qdrant collection, or a part of a shared one (`tenant`), asked by the async client.

Knows no other version (`qdrant.store`, `qdrant.tenant_store`).
"""

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from qdrant_client import models

from matinee.filters import ItemFilter
from matinee.filters.conditions import Condition
from matinee.index.conditions import not_deleted_condition, scroll_condition, valid_ids
from matinee.index.item_vector import complete_points
from matinee.index.qdrant import query as translate
from matinee.index.qdrant.connection import Connection
from matinee.index.qdrant.tenant import Tenant
from matinee.index.records import to_hit, to_point
from matinee.index.types import TEXT, FacetCount, Hit, Manifest, Point, Scroll, Search

T = TypeVar("T")
EngineRecord = TypeVar("EngineRecord", models.Record, models.ScoredPoint)


class QdrantIndex:
    """One version's collection. Shares its store's connection, so closing it closes nothing. `tenant`: whose part of it the version is."""

    def __init__(self, connection: Connection, collection: str, manifest: Manifest, tenant: Tenant | None = None) -> None:
        self.manifest = manifest
        self.approximate = not connection.local
        self.searches_by_id = True
        self._call = connection
        self._client = connection.client
        self._name = collection
        self._tenant = tenant
        # As much as the client's calls take of it: counts have none.
        asked = connection.settings.read_consistency
        self._consistency = None if asked == "one" else models.ReadConsistencyType(asked)

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        local = self._call.local
        requests = [
            translate.request(
                search,
                self.manifest,
                exact=search.exact and not local,
                settings=None if local else self._call.settings,
                tenant=self._tenant,
            )
            for search in searches
        ]
        if not requests:
            return []
        answers = await self._call(
            self._client.query_batch_points(self._name, requests, consistency=self._consistency, timeout=self._seconds)
        )
        return [translate.hits(search, self._restore(answer.points)) for search, answer in zip(searches, answers, strict=True)]

    def _restore(self, records: Sequence[EngineRecord]) -> Sequence[EngineRecord]:
        return records if self._tenant is None else [self._tenant.restore(record) for record in records]

    def _filter(self, condition: Condition | None) -> models.Filter | None:
        return translate.filter_of(condition if self._tenant is None else self._tenant.condition(condition))

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
                scroll_filter=self._filter(scroll_condition(scroll, self.manifest.declared)),
                limit=scroll.limit,
                offset=scroll.after,
                with_payload=True,
                with_vectors=[TEXT] if scroll.vectors else False,
                consistency=self._consistency,
                timeout=self._seconds,
            )
        )
        return [to_hit(record) for record in self._restore(page)], None if following is None else str(following)

    async def points(self, ids: Sequence[str]) -> list[Point]:
        return [to_point(record) for record in await self._fetch(ids, True)]

    async def _fetch(self, ids: Sequence[str], vectors: bool | list[str], *, payload: bool | list[str] = True) -> list[models.Record]:
        valid = valid_ids(ids)
        if not valid:
            return []
        if self._tenant is not None:
            valid, payload = [self._tenant.id(uid) for uid in valid], self._tenant.fields(payload)
        call = self._client.retrieve(
            self._name, valid, with_payload=payload, with_vectors=vectors, consistency=self._consistency, timeout=self._seconds
        )
        return [*self._restore(await self._call(call))]

    async def upsert(self, points: Sequence[Point]) -> None:
        whole = complete_points(points, self.manifest)
        stored = whole if self._tenant is None else [self._tenant.to_stored(point) for point in whole]
        for batch in translate.batches([translate.engine_point(point) for point in stored], self.manifest.dimensions):
            await self._call(self._client.upsert(self._name, batch, wait=True), patient=True)

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        call = self._client.count(self._name, count_filter=self._filter_not_deleted(filter), exact=True, timeout=self._seconds)
        return (await self._call(call)).count

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50, exact: bool = True) -> list[FacetCount]:
        field = self.manifest.payload_key(key)
        if self._tenant is not None:
            field = self._tenant.key(field)
        call = self._client.facet(
            self._name,
            field,
            facet_filter=self._filter_not_deleted(filter),
            limit=limit,
            exact=exact,
            consistency=self._consistency,
            timeout=self._seconds,
        )
        return [(hit.value, hit.count) for hit in (await self._call(call)).hits]

    def _filter_not_deleted(self, filter: ItemFilter) -> models.Filter | None:
        return self._filter(not_deleted_condition(filter, self.manifest.declared))

    async def max_revision(self) -> int:
        newest = models.OrderByQuery(order_by=models.OrderBy(key="revision", direction=models.Direction.DESC))
        call = self._client.query_points(
            self._name,
            query=newest,
            query_filter=self._filter(None),
            limit=1,
            with_payload=["revision"],
            consistency=self._consistency,
            timeout=self._seconds,
        )
        points = (await self._call(call)).points
        return int((points[0].payload or {})["revision"]) if points else 0

    async def together(self, work: Callable[[], Coroutine[object, None, T]], *, brief: bool = False) -> T:
        return await work()

    def check_health(self, hang_s: float) -> None:
        """Nothing to check: each call has a deadline."""

    async def close(self) -> None:
        """Nothing to give back: the connection is the store's."""

    @property
    def _seconds(self) -> int:
        # So that the server also stops work that no request waits for any more.
        return math.ceil(self._call.settings.timeout_s)
