"""The embedded engine: each version of a catalogue is a folder with one `qdrant-edge` shard, opened inside this process.

Shard calls run one after the other, in the one thread of an open index. The engine holds Python's lock for as long as a call runs, so
more threads would answer no more. Light calls go before heavy ones (`matinee.index.cost`). Searches that come together are one hop. One
alone takes none while the thread is idle and the last ones were brief: the event loop would stand still during the call all the same.
Searches scan, which loses nothing, unless the version's graphs were built (HNSW, `hnsw`); what is written later is scanned too.
Does not serve two processes: whoever opens a version holds its lock until `close`, others get `IndexLockedError`. Does not watch
`CURRENT`: the Retriever does. Leaves the order of equal scores to the engine.
"""

import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Self, TypeVar, TypeVarTuple, cast

import qdrant_edge as edge

from matinee.errors import IndexUnavailableError
from matinee.filters import ItemFilter
from matinee.index import cost
from matinee.index.conditions import not_deleted_condition, valid_ids
from matinee.index.edge import files, hnsw
from matinee.index.edge import query as translate
from matinee.index.item_vector import complete_points
from matinee.index.records import text_vector, to_hit, to_point
from matinee.index.types import TEXT, FacetCount, Hit, Manifest, Payload, Point, Scroll, Search
from matinee.lanes import LaneThread
from matinee.memory_cache import MemoryCache
from matinee.settings.index import IndexSettings

_PIECE = 16
_KEPT_BYTES = 64_000_000
T = TypeVar("T")
Args = TypeVarTuple("Args")


def _run_without_waiting(work: Coroutine[object, None, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise TypeError("it awaited something else than its index")


class EdgeIndex:
    """One open version: its shard, its lock and its thread. The store knows which version is current."""

    def __init__(self, path: Path, manifest: Manifest, settings: IndexSettings) -> None:
        self.manifest = manifest
        self._path = path
        self._settings = settings
        self._lock: int | None = None
        self._shard: edge.EdgeShard | None = None
        self._thread = LaneThread("index-edge")
        self._closed = False
        # Only this object writes to the shard, so what it has read stays true until it writes.
        self._payloads: MemoryCache[str, Payload] = MemoryCache(_KEPT_BYTES)

    searches_by_id = False
    """The engine takes vectors only. Reading one costs no hop here, and a tenth of a millisecond."""

    @property
    def approximate(self) -> bool:
        return hnsw.built(self._path)

    @classmethod
    async def start(cls, path: Path, manifest: Manifest, settings: IndexSettings, *, create: bool = False) -> Self:
        index = cls(path, manifest, settings)
        try:
            await index._run(index._create if create else index._load)
        except BaseException:
            await index.close()
            raise
        return index

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        return await self._run(self._search, searches, heavy=cost.is_heavy(searches))

    def _search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        requests = translate.requests(searches, self.manifest, self._settings)
        if len(requests) == 1:
            answers = [self._open.query(requests[0])]
        else:
            answers = self._open.query_batch(edge.QueryBatchRequest(requests)) if requests else []
        ranked = [translate.scored(search, answer) for search, answer in zip(searches, answers, strict=True)]
        payloads = self._payloads_of(
            {id for search, found in zip(searches, ranked, strict=True) if search.with_payload for id, *_ in found}
        )
        return [
            [Hit(id, score, payloads[id] if search.with_payload else Payload(), vector) for id, score, vector in found]
            for search, found in zip(searches, ranked, strict=True)
        ]

    def _payloads_of(self, ids: set[str]) -> dict[str, Payload]:
        """Payloads by id. Reading and converting them costs as much as the search itself, so those of answered items are kept."""
        payloads = {id: payload for id in ids if (payload := self._payloads.get(id)) is not None}
        missing: list[edge.PointId] = list(ids - payloads.keys())
        if missing:
            read = {str(record.id): cast(Payload, record.payload or {}) for record in self._open.retrieve(missing, True, False)}
            for id, payload in read.items():
                self._payloads.put(id, payload)
            payloads |= read
        return payloads

    async def retrieve(self, ids: Sequence[str], *, vectors: bool = False) -> list[Hit | None]:
        return await self._run(self._retrieve, ids, vectors, heavy=cost.reading(len(ids)) > cost.LIGHT)

    def _retrieve(self, ids: Sequence[str], vectors: bool) -> list[Hit | None]:
        records = self._open.retrieve([*valid_ids(ids)], not vectors, [TEXT] if vectors else False)
        if not vectors:
            hits = {hit.id: hit for hit in map(to_hit, records)}
        else:
            # They are examples, and many of those were in an answer before.
            found = {str(record.id): text_vector(record.vector) for record in records}
            payloads = self._payloads_of(set(found))
            hits = {id: Hit(id, 0.0, payloads[id], vector) for id, vector in found.items()}
        return [hits.get(id) for id in ids]

    async def present(self, ids: Sequence[str]) -> set[str]:
        return await self._run(self._present, ids)

    def _present(self, ids: Sequence[str]) -> set[str]:
        records = self._open.retrieve([*valid_ids(ids)], ["deleted"], False)
        return {str(record.id) for record in records if not (record.payload or {}).get("deleted")}

    async def scroll(self, scroll: Scroll) -> tuple[list[Hit], str | None]:
        heavy = cost.scans(0, scroll.filter, scroll.limit) > cost.LIGHT
        return await self._run(self._scroll, translate.page(scroll, self.manifest), heavy=heavy)

    def _scroll(self, request: edge.ScrollRequest) -> tuple[list[Hit], str | None]:
        page, following = self._open.scroll(request)
        return [to_hit(record) for record in page], None if following is None else str(following)

    async def points(self, ids: Sequence[str]) -> list[Point]:
        heavy = cost.reading(len(ids)) > cost.LIGHT
        return await self._run(lambda: [*map(to_point, self._open.retrieve([*valid_ids(ids)], True, True))], heavy=heavy)

    async def upsert(self, points: Sequence[Point]) -> None:
        # No search runs during a call, so each takes few points, and light searches go before the next.
        for start in range(0, len(points), _PIECE):
            await self._run(self._upsert, points[start : start + _PIECE], heavy=True)
        if points:
            await self._run(lambda: self._open.flush(), heavy=True)

    def _upsert(self, points: Sequence[Point]) -> None:
        for point in points:
            self._payloads.drop(point.id)
        files.require_space(self._path)
        batch = [translate.engine_point(point) for point in complete_points(points, self.manifest)]
        self._open.update(edge.UpdateOperation.upsert_points(batch))

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        request = edge.CountRequest(exact=True, filter=translate.filter_of(not_deleted_condition(filter, self.manifest.declared)))
        return await self._run(lambda: self._open.count(request), heavy=filter.conditions > cost.LIGHT)

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50, exact: bool = True) -> list[FacetCount]:
        stored = translate.filter_of(not_deleted_condition(filter, self.manifest.declared))
        request = edge.FacetRequest(self.manifest.payload_key(key), limit, exact=exact, filter=stored)
        return await self._run(lambda: [(hit.value, hit.count) for hit in self._open.facet(request).hits], heavy=True)

    async def max_revision(self) -> int:
        return await self._run(self._max_revision)

    def _max_revision(self) -> int:
        newest = edge.OrderBy("revision", edge.Direction.Desc)
        points = self._open.query(edge.QueryRequest(limit=1, query=newest, with_payload=["revision"]))
        return int((points[0].payload or {})["revision"]) if points else 0

    async def together(self, work: Callable[[], Coroutine[object, None, T]], *, brief: bool = False) -> T:
        return await self._run(lambda: _run_without_waiting(work()), brief=brief)

    def check_health(self, hang_s: float) -> None:
        self._thread.check_health(hang_s)

    async def close(self) -> None:
        """Give the path back, after the calls that were already under way."""
        if not self._closed:
            self._closed = True
            await self._thread.close(self._release)

    @property
    def _open(self) -> edge.EdgeShard:
        if self._shard is None:
            raise IndexUnavailableError(f"the index version {self.manifest.version} was closed")
        return self._shard

    async def _run(self, call: Callable[[*Args], T], *args: *Args, heavy: bool = False, brief: bool = False) -> T:
        if self._closed:
            raise IndexUnavailableError(f"the index version {self.manifest.version} was closed")
        if self._thread.runs_here:
            return call(*args)

        def run() -> T:
            with files.explain(self._path):
                return call(*args)

        return await self._thread.run(run, heavy=heavy, brief=brief)

    def _load(self) -> None:
        self._lock = files.take_lock(self._path)
        shard = self._path / "shard"
        self._shard = edge.EdgeShard.load(str(shard), translate.search_config(len([*(shard / "segments").iterdir()])))

    def _create(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = files.take_lock(self._path)
        files.empty(self._path)
        files.require_space(self._path)
        self._shard = edge.EdgeShard.create(str(self._path / "shard"), translate.shard_config(self.manifest, self._settings))
        for operation in translate.payload_indexes(self.manifest):
            self._shard.update(operation)
        self._shard.flush()

    def _release(self) -> None:
        try:
            if self._shard is not None:
                with files.explain(self._path):
                    self._shard.close()
        finally:
            self._shard = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
