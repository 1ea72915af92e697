"""The embedded engine: each version of a catalogue is a folder with one `qdrant-edge` shard, opened inside this process.

Every shard call runs in the one worker thread of its open index, so no event loop blocks and searches that come together are one hop.
No graph index is ever built: up to some 100,000 items a scan is as fast as HNSW and loses nothing, so every search here is exact.
Does not serve two processes: whoever opens a version holds its lock until `close`, others get `IndexLockedError`. Does not watch
`CURRENT`: the Retriever does. Leaves the order of equal scores to the engine.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import qdrant_edge as edge
from pydantic import ValidationError

from matinee import index_edge_files as files
from matinee import index_edge_query as translate
from matinee.errors import IndexAbsentError, IndexLockedError, IndexUnavailableError
from matinee.index import TEXT, Hit, Manifest, Point, Search
from matinee.items import ItemFilter

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_BATCH = 1000
T = TypeVar("T")
P = ParamSpec("P")


class EdgeIndex:
    """One open version. Knows its shard, its lock and its thread; which version is current is the store's."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._path = path
        self._lock: int | None = None
        self._shard: edge.EdgeShard | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="index-edge")
        self._closed = False

    @classmethod
    async def start(cls, path: Path, manifest: Manifest, *, create: bool = False) -> Self:
        index = cls(path, manifest)
        try:
            await index._run(index._create if create else index._load)
        except BaseException:
            await index.close()
            raise
        return index

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        return await self._run(self._search, searches)

    def _search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        requests = [translate.request(search) for search in searches]
        if len(requests) == 1:
            return [translate.hits(searches[0], self._open.query(requests[0]))]
        answers = self._open.query_batch(edge.QueryBatchRequest(requests)) if requests else []
        return [translate.hits(search, answer) for search, answer in zip(searches, answers, strict=True)]

    async def retrieve(self, ids: Sequence[str], *, vectors: bool = False) -> list[Hit | None]:
        return await self._run(self._retrieve, ids, vectors)

    def _retrieve(self, ids: Sequence[str], vectors: bool) -> list[Hit | None]:
        found = self._open.retrieve(translate.known_ids(ids), True, [TEXT] if vectors else False)
        hits = {hit.id: hit for hit in map(translate.record, found)}
        return [hits.get(id) for id in ids]

    async def scroll(
        self,
        *,
        limit: int,
        after: str | None = None,
        filter: ItemFilter = ItemFilter(),
        since: int = 0,
        origin: str | None = None,
        deleted: bool = False,
        pending: bool = False,
        vectors: bool = False,
    ) -> tuple[list[Hit], str | None]:
        if after is not None and not translate.known_ids([after]):
            raise ValueError(f"not a cursor of this index: {after!r}")
        request = edge.ScrollRequest(
            offset=after,
            limit=limit,
            filter=translate.stored(filter, since=since, origin=origin, deleted=deleted, pending=pending),
            with_payload=True,
            with_vector=[TEXT] if vectors else False,
        )
        return await self._run(self._scroll, request)

    def _scroll(self, request: edge.ScrollRequest) -> tuple[list[Hit], str | None]:
        found, following = self._open.scroll(request)
        return [translate.record(record) for record in found], None if following is None else str(following)

    async def points(self, ids: Sequence[str]) -> list[Point]:
        return await self._run(lambda: [translate.whole(found) for found in self._open.retrieve(translate.known_ids(ids), True, True)])

    async def upsert(self, points: Sequence[Point]) -> None:
        await self._run(self._upsert, points)

    def _upsert(self, points: Sequence[Point]) -> None:
        for start in range(0, len(points), _BATCH):
            files.require_space(self._path)
            batch = [translate.point(point) for point in points[start : start + _BATCH]]
            self._open.update(edge.UpdateOperation.upsert_points(batch))
        if points:
            self._open.flush()

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        return await self._run(lambda: self._open.count(edge.CountRequest(exact=True, filter=translate.stored(filter))))

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50) -> list[tuple[str, int]]:
        request = edge.FacetRequest(key, limit, exact=True, filter=translate.stored(filter))
        return await self._run(lambda: [(str(hit.value), hit.count) for hit in self._open.facet(request).hits])

    async def max_revision(self) -> int:
        return await self._run(self._max_revision)

    def _max_revision(self) -> int:
        newest = edge.OrderBy("revision", edge.Direction.Desc)
        found = self._open.query(edge.QueryRequest(limit=1, query=newest, with_payload=["revision"]))
        return int((found[0].payload or {})["revision"]) if found else 0

    async def close(self) -> None:
        """Give the path back, after the calls that were already under way."""
        if not self._closed:
            self._closed = True
            released = self._worker.submit(self._release)
            self._worker.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(released))

    @property
    def _open(self) -> edge.EdgeShard:
        if self._shard is None:
            raise IndexUnavailableError(f"the index version {self.manifest.version} was closed")
        return self._shard

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise IndexUnavailableError(f"the index version {self.manifest.version} was closed")

        def explained() -> T:
            with files.explain(self._path):
                return call(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._worker, explained)

    def _load(self) -> None:
        self._lock = files.take_lock(self._path)
        self._shard = edge.EdgeShard.load(str(self._path / "shard"))

    def _create(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = files.take_lock(self._path)
        files.empty(self._path)
        files.require_space(self._path)
        self._shard = edge.EdgeShard.create(str(self._path / "shard"), translate.shard_config(self.manifest))
        for operation in translate.payload_indexes():
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


class EdgeStore:
    """The folder of one catalogue's versions. A version without a manifest is an unfinished build."""

    def __init__(self, path: Path, catalogue: str) -> None:
        self._path = path
        self._catalogue = catalogue

    async def versions(self) -> list[Manifest]:
        return await asyncio.to_thread(self._versions)

    def _versions(self) -> list[Manifest]:
        folders = sorted((path.parent for path in self._path.glob("*/manifest.json")), reverse=True)
        return [self._manifest(folder.name) for folder in folders]

    async def current(self) -> Manifest | None:
        return await asyncio.to_thread(self._marked, "current")

    async def previous(self) -> Manifest | None:
        return await asyncio.to_thread(self._marked, "previous")

    async def create(self, manifest: Manifest) -> EdgeIndex:
        path = self._folder(manifest.version)
        if (path / "manifest.json").exists():
            raise IndexUnavailableError(f"the index version {manifest.version} exists already: build under a new name")
        return await EdgeIndex.start(path, manifest, create=True)

    async def finish(self, manifest: Manifest) -> None:
        await asyncio.to_thread(self._finish, manifest)

    def _finish(self, manifest: Manifest) -> None:
        path = self._folder(manifest.version)
        if not (path / "shard").is_dir():
            raise IndexAbsentError(f"there is no build of version {manifest.version} under {self._path}")
        with files.explain(path), files.locked(path):
            files.write(path / "manifest.json", manifest.model_dump_json(indent=2))

    async def open(self, version: str) -> EdgeIndex:
        manifest = await asyncio.to_thread(self._manifest, version)
        return await EdgeIndex.start(self._folder(version), manifest)

    async def switch(self, version: str) -> None:
        await asyncio.to_thread(self._switch, version)

    def _switch(self, version: str) -> None:
        self._manifest(version)
        marks = self._marks()
        if marks.get("current") != version:
            self._mark(current=version, previous=marks.get("current"))

    async def rollback(self) -> Manifest:
        return await asyncio.to_thread(self._rollback)

    def _rollback(self) -> Manifest:
        marks = self._marks()
        previous = marks.get("previous")
        if previous is None:
            raise IndexAbsentError(f"the catalogue {self._catalogue!r} has no previous index version to go back to")
        manifest = self._manifest(previous)
        self._mark(current=previous, previous=marks.get("current"))
        return manifest

    async def prune(self, keep: int) -> list[str]:
        return await asyncio.to_thread(self._prune, keep)

    def _prune(self, keep: int) -> list[str]:
        kept = {*[manifest.version for manifest in self._versions()[:keep]], *self._marks().values()}
        doomed = [path for path in self._path.glob("*/") if path.name not in kept and _NAME.fullmatch(path.name)]
        return [path.name for path in sorted(doomed) if self._remove(path)]

    def _remove(self, path: Path) -> bool:
        """Delete a version that nobody has open: a build under way and a version being drained stay for the next time."""
        try:
            with files.explain(path), files.locked(path):
                # First of all: a kill from here on leaves an unfinished build, never half of a finished version.
                (path / "manifest.json").unlink(missing_ok=True)
                shutil.rmtree(path)
        except IndexLockedError:
            return False
        return True

    async def close(self) -> None:
        """Nothing to give back: open versions belong to those who opened them."""

    def _folder(self, version: str) -> Path:
        if not _NAME.fullmatch(version):
            raise IndexAbsentError(f"{version!r} can't be the name of an index version")
        return self._path / version

    def _manifest(self, version: str) -> Manifest:
        path = self._folder(version) / "manifest.json"
        text = files.read(path)
        if text is None:
            raise IndexAbsentError(
                f"there is no finished index version {version!r} of the catalogue {self._catalogue!r} under {self._path}: "
                "run `matinee ingest` to build one, `matinee index` to see what is there"
            )
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise IndexUnavailableError(
                f"{path} is not a readable manifest ({error.error_count()} faults): delete its folder and build the version again"
            ) from error

    def _marked(self, mark: str) -> Manifest | None:
        version = self._marks().get(mark)
        return None if version is None else self._manifest(version)

    def _marks(self) -> dict[str, str]:
        path = self._path / "CURRENT"
        text = files.read(path)
        if text is None:
            return {}
        try:
            return {mark: version for mark, version in json.loads(text).items() if isinstance(version, str)}
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise IndexUnavailableError(
                f'{path} is damaged: replace its content by {{"current": "<version>"}}, with the name of a folder beside it'
            ) from error

    def _mark(self, *, current: str, previous: str | None) -> None:
        with files.explain(self._path):
            files.write(self._path / "CURRENT", json.dumps({"current": current, "previous": previous}))
