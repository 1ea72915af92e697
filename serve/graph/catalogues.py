"""The catalogues of one Retriever: the default one, always open, and those of the registry, opened when a message first needs them.

At most `index.catalogues.open` of these are open at once; one without a message for `index.catalogues.idle_s` seconds is closed. A
catalogue that is deleted takes no new message, ends those under way, and is then removed. Does not know what messages mean.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from matinee.errors import CatalogueConflictError, IndexAbsentError, IndexLockedError, MatineeError, OverloadedError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.build import build_empty, new_manifest
from matinee.index.catalogues import dated_record, delete_catalogue
from matinee.index.imports import OPEN
from matinee.index.lease import BuildWatch
from matinee.index.protocols import IndexStore
from matinee.index.registry import CatalogueChanges, CatalogueRecord, CatalogueRegistry, absent, check_new
from matinee.index.types import MADE_EMPTY, Manifest
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.catalogue_manager import CatalogueEntry, State
from serve.graph.messages import RetrieverMessage
from serve.graph.open_catalogue import OpenCatalogue
from serve.graph.wire import QueuedMessage

log = logging.getLogger(__name__)

T = TypeVar("T")

CHANGE_S = 3.0
"""How long whoever changes attributes waits for the copy of the index; a longer one goes on by itself."""
_FIRST = "00000000-0000-0000-0000-000000000000"


@dataclass
class _Entry:
    """A catalogue that is open, or being opened: how many messages are under way in it, and when the last one came."""

    record: CatalogueRecord
    opening: "asyncio.Task[OpenCatalogue]"
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Catalogues:
    """`open` makes the catalogue of its settings, `store_of` its store, and `default` is the default catalogue's."""

    def __init__(
        self,
        settings: Settings,
        default: OpenCatalogue,
        registry: CatalogueRegistry,
        store_of: Callable[[Settings], IndexStore],
        open: Callable[[Settings, IndexStore], OpenCatalogue],
        *,
        watch_s: float,
    ) -> None:
        self._settings = settings
        self._default = default
        self._registry = registry
        self._store_of = store_of
        self._make = open
        self._watch_s = watch_s
        self._clock = time.monotonic
        self._entries: dict[str, _Entry] = {}
        self._records: dict[str, CatalogueRecord] = {}
        self._without_work: dict[str, str] = {}
        self._builds = BuildWatch()
        self._changing: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, str] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()

    # one catalogue

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[OpenCatalogue]:
        """The catalogue `name`, open until the end of the `with`. Raises where there is none, or where too many are open and at work."""
        if name == self._settings.catalogue:
            yield self._default
            return
        record = await self._record(name)
        entry = self._entries.get(name)
        if entry is None or entry.record.created != record.created:
            entry = self._add(record)
        entry.users += 1
        entry.used = self._clock()
        try:
            catalogue = await self._wait_open(entry)
            if entry.record.search != record.search:
                catalogue.reconfigure(record.settings(self._settings))
            entry.record = record
            yield catalogue
        finally:
            self._release(entry)

    async def peek(self, name: str, queued: QueuedMessage[RetrieverMessage[object]]) -> object:
        """The result of a look for background work: it keeps nothing open that nobody uses.

        It opens a catalogue only where items may wait for their descriptions, and no other has to be closed for it.
        """
        entry = self._entries.get(name)
        if entry is None and isinstance(queued.message, messages.Pending) and (await self._record(name)).pending and self._has_room:
            async with self.use(name) as catalogue:
                [result] = await catalogue.answer([queued])
                return result
        if entry is not None:
            entry.users += 1
            try:
                [result] = await (await self._wait_open(entry)).answer([queued])
                return result
            finally:
                self._release(entry)
        if not isinstance(queued.message, messages.ListImports):
            return []
        store = self._store_of((await self._record(name)).settings(self._settings))
        try:
            jobs = await store.imports().jobs()
        finally:
            await store.close()
        return [job for job in jobs if job.status in OPEN or not queued.message.unfinished]

    async def _wait_open(self, entry: _Entry) -> OpenCatalogue:
        """The catalogue, once it is open. One that can't be opened is tried again by the next message."""
        try:
            return await asyncio.shield(entry.opening)
        except Exception:
            if self._entries.get(entry.record.name) is entry:
                del self._entries[entry.record.name]
            raise

    @staticmethod
    def _release(entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            entry.idle.set()

    def is_open(self, name: str) -> bool:
        return name == self._settings.catalogue or name in self._entries

    @property
    def _has_room(self) -> bool:
        return len(self._entries) < self._settings.index.catalogues.open

    def _add(self, record: CatalogueRecord) -> _Entry:
        before = self._entries.pop(record.name, None)
        if before is not None:
            # Of the same name, but deleted and created again by another process.
            self._spawn(self._close(before))
        if not self._has_room:
            self._evict()
        self._without_work.pop(record.name, None)
        entry = self._entries[record.name] = _Entry(record, asyncio.create_task(self._open(record)), used=self._clock())
        return entry

    def _evict(self) -> None:
        """Close the catalogue that was used least recently."""
        free = [(entry.used, name) for name, entry in self._entries.items() if not entry.users]
        if not free:
            most = self._settings.index.catalogues.open
            raise OverloadedError(f"{most} catalogues are open and at work (index.catalogues.open); ask again in a moment")
        self._spawn(self._close(self._entries.pop(min(free)[1])))

    async def _open(self, record: CatalogueRecord) -> OpenCatalogue:
        settings = record.settings(self._settings)
        catalogue = self._make(settings, self._store_of(settings))
        # Before any write: after a kill, what a write left for later is looked for.
        await asyncio.gather(catalogue.start(), self._note(record, {"pending": True}))
        return catalogue

    async def _note(self, record: CatalogueRecord, what: dict[str, object]) -> None:
        """Note something in the registry; not in the record of another catalogue that has the name by now."""
        with suppress(MatineeError):
            same = record.created
            await self._registry.update(record.name, lambda now: now.model_copy(update=what) if now.created == same else now)
            self._read_at = float("-inf")

    async def _close(self, entry: _Entry) -> None:
        """Once no message is under way in it. Notes how many items it has, for lists, and whether some still have to be described."""
        while entry.users:
            entry.idle.clear()
            await entry.idle.wait()
        if isinstance(catalogue := (await asyncio.gather(entry.opening, return_exceptions=True))[0], BaseException):
            return
        known: dict[str, object] = {}
        with suppress(MatineeError):
            if catalogue.active.manifest is None:
                known["pending"] = False
            else:
                known["items"] = (await catalogue.service.status()).items
                known["pending"] = bool(await catalogue.service.pending(1, _FIRST))
        await catalogue.close()
        if known:
            await self._note(entry.record, known)

    async def close_idle(self) -> None:
        """Close what nobody has used for long, and what another process has deleted."""
        if not self._entries:
            return
        late = self._clock() - self._settings.index.catalogues.idle_s
        records = await self.records()
        for name, entry in list(self._entries.items()):
            known = records.get(name)
            gone = known is None or known.state == "deleting" or known.created != entry.record.created
            if not entry.users and (gone or entry.used < late):
                await self._close(self._entries.pop(name))

    # the registry

    async def records(self) -> dict[str, CatalogueRecord]:
        """The registry, at most `watch_s` old."""
        async with self._reading:
            if self._clock() - self._read_at > self._watch_s:
                self._records = await self._registry.records()
                self._read_at = self._clock()
            return {name: record for name, record in self._records.items() if name != self._settings.catalogue}

    async def _record(self, name: str) -> CatalogueRecord:
        record = self._records.get(name)
        if record is None or self._clock() - self._read_at > self._watch_s:
            record = (await self.records()).get(name)
        if record is None or record.state == "deleting":
            raise absent(name)
        return record

    # what is asked about catalogues

    async def entries(self, names: tuple[str, ...] | None) -> list[CatalogueEntry]:
        """All catalogues, or those of `names`, the default one first."""
        records = await self.records()
        shown = [record for name, record in sorted(records.items()) if names is None or name in names]
        first = [] if names is not None and self._settings.catalogue not in names else [None]
        return await asyncio.gather(*(self._entry(record) for record in (*first, *shown)))

    async def _entry(self, record: CatalogueRecord | None) -> CatalogueEntry:
        name = self._settings.catalogue if record is None else record.name
        count = None if record is None else record.items
        manifest: Manifest | None = None
        is_open = self.is_open(name)
        building = name in self._changing
        trouble = self._failed.get(name)
        try:
            if record is not None and record.state == "deleting":
                return CatalogueEntry(name, False, "deleting", record)
            if is_open:
                catalogue = self._default if record is None else await self._wait_open(self._entries[name])
                status = await catalogue.service.status()
                manifest, building = status.manifest, building or status.building
                if manifest is None and status.trouble:
                    return CatalogueEntry(name, record is None, "unavailable", record, open=True, building=building, trouble=status.trouble)
                count = None if manifest is None else status.items
            elif record is not None:
                store = self._store_of(record.settings(self._settings))
                try:
                    manifest, mark = await asyncio.gather(store.current(), store.lease_mark())
                finally:
                    await store.close()
                building = self._builds.seen(name, mark) or building
                count = count if count is not None or manifest is None else manifest.count
        except MatineeError as error:
            log.warning("catalogue %s: %s", name, error)
            return CatalogueEntry(name, record is None, "unavailable", record, trouble=str(error))
        if manifest is None:
            state: State = "building" if building else "empty"
            return CatalogueEntry(name, record is None, state, record, items=0, open=is_open, building=building, trouble=trouble)
        return CatalogueEntry(
            name,
            record is None,
            "ready",
            record,
            manifest.version,
            manifest.recipe,
            count,
            len(manifest.declared),
            is_open,
            building,
            trouble,
        )

    async def busy(self) -> list[str]:
        """The catalogues beside the default one that have background work: those that are open, that have imports which are not over, or
        items that may still have to be described.

        One that is closed is looked into once for imports: whoever begins one opens it.
        """
        busy = list(self._entries)
        for name, record in (await self.records()).items():
            if name in self._entries or record.state != "ready":
                continue
            if record.pending:
                busy.append(name)
                continue
            if self._without_work.get(name) == record.created:
                continue
            store = self._store_of(record.settings(self._settings))
            try:
                if any(job.status in OPEN for job in await store.imports().jobs()):
                    busy.append(name)
                else:
                    self._without_work[name] = record.created
            finally:
                await store.close()
        return busy

    async def create(self, record: CatalogueRecord, fingerprint: str, dimension: int) -> CatalogueEntry:
        """Add a catalogue with an empty index of this encoder. One that an ingest has built before keeps its versions."""
        return await self.finish(self._create(record, fingerprint, dimension))

    async def _create(self, record: CatalogueRecord, fingerprint: str, dimension: int) -> CatalogueEntry:
        most = self._settings.index.catalogues.most
        check_new(record, self._settings.catalogue, await self._registry.records(), most)
        record = await dated_record(self._settings, record, self._store_of)
        await self._registry.add(record, most)
        settings = record.settings(self._settings)
        store = self._store_of(settings)
        try:
            manifest = new_manifest(
                record.name, fingerprint, dimension, settings.index.recipe, settings.index.facts, MADE_EMPTY, record.attributes
            )
            await build_empty(store, manifest)
        except BaseException as error:
            await self._registry.remove(record.name)
            if isinstance(error, IndexLockedError):
                raise CatalogueConflictError(f"the catalogue {record.name!r} is being built: {error}") from error
            raise
        finally:
            await store.close()
            self._read_at = float("-inf")
        await self.records()
        return await self._entry(record)

    async def create_index(self, name: str, attributes: dict[str, Attribute] | None, fingerprint: str, dimension: int) -> CatalogueEntry:
        """Make the first, empty index of a catalogue that has none, for an encoder."""
        return await self.finish(self._create_index(name, attributes, fingerprint, dimension))

    async def _create_index(self, name: str, attributes: dict[str, Attribute] | None, fingerprint: str, dimension: int) -> CatalogueEntry:
        record = None if name == self._settings.catalogue else await self._record(name)
        settings = self._settings if record is None else record.settings(self._settings)
        declared = (record and record.attributes) or attributes
        index = settings.index
        manifest = new_manifest(name, fingerprint, dimension, index.recipe, index.facts, MADE_EMPTY, declared)
        async with self.use(name) as catalogue:
            try:
                made = await catalogue.create_index(manifest)
            except IndexLockedError as error:
                raise CatalogueConflictError(f"the catalogue {name!r} is being built: {error}") from error
        if not made:
            raise CatalogueConflictError(f"the catalogue {name!r} has an index already: write to it")
        return await self._entry(record)

    async def change(self, name: str, changes: CatalogueChanges) -> CatalogueEntry:
        """Change a catalogue. Other attributes make a copy of its index: it may still be under way when the entry comes, which says so."""
        before = None if name == self._settings.catalogue else await self._record(name)
        if before is None:
            changes.require_default()
        declared: dict[str, Attribute] | None = None
        has_index = False
        if changes.attributes is not None:
            async with self.use(name) as catalogue:
                try:
                    now, has_index = catalogue.service.index().manifest.declared, True
                except IndexAbsentError:
                    if before is None:
                        raise
                    now = before.attributes or DEFAULT_ATTRIBUTES
            declared = changes.declared(now)
        if declared is None or not has_index:
            return await self.finish(self._change_record(name, before, changes, declared))
        if name in self._changing:
            raise CatalogueConflictError(f"the attributes of {name!r} are being changed already: wait for the end (building)")
        task = self._changing[name] = self._spawn(self._redeclare(name, before, changes, declared))
        task.add_done_callback(lambda done: self._changed(name, done))
        done, _ = await asyncio.wait({task}, timeout=CHANGE_S)
        if done:
            self._failed.pop(name, None)
            task.result()
        return await self._entry(before if before is None else await self._record(name))

    async def _redeclare(
        self, name: str, before: CatalogueRecord | None, changes: CatalogueChanges, declared: dict[str, Attribute]
    ) -> None:
        async def note() -> None:
            if before is not None:
                await self._change_record(name, before, changes, declared)

        async with self.use(name) as catalogue:
            try:
                await catalogue.redeclare(declared, note)
            except IndexLockedError as error:
                raise CatalogueConflictError(f"the catalogue {name!r} is being built: {error}") from error

    def _changed(self, name: str, done: "asyncio.Task[None]") -> None:
        del self._changing[name]
        error = None if done.cancelled() else done.exception()
        self._failed.pop(name, None)
        if error is not None:
            log.warning("the attributes of the catalogue %s were not changed: %s", name, error)
            self._failed[name] = f"its attributes were not changed: {error}"

    async def _change_record(
        self, name: str, before: CatalogueRecord | None, changes: CatalogueChanges, declared: dict[str, Attribute] | None
    ) -> CatalogueEntry:
        if before is None:
            return await self._entry(None)

        def changed(now: CatalogueRecord) -> CatalogueRecord:
            if now.created != before.created or now.state == "deleting":
                raise absent(name)
            after = changes.applied(now)
            return after if declared is None else after.model_copy(update={"attributes": declared})

        record = await self._registry.update(name, changed)
        self._read_at = float("-inf")
        return await self._entry(record)

    async def delete(self, name: str) -> None:
        """Delete a catalogue with all its items, once the messages under way in it have ended. The next call deletes what a kill leaves."""
        await self.finish(self._delete(name))

    async def _delete(self, name: str) -> None:

        async def close() -> None:
            # Nobody opens it from here on.
            self._read_at = float("-inf")
            if (task := self._changing.get(name)) is not None:
                task.cancel()
                await asyncio.wait({task})
            if (entry := self._entries.pop(name, None)) is not None:
                await self._close(entry)

        try:
            await delete_catalogue(self._registry, self._settings, name, self._store_of, close)
        finally:
            self._read_at = float("-inf")
            self._failed.pop(name, None)

    # tasks

    async def finish(self, work: Coroutine[object, None, T]) -> T:
        """The result of a change. A caller that gives up ends its waiting, never the change."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[object, None, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def check_health(self) -> None:
        """Raises where a catalogue that is open is ill."""
        for entry in self._entries.values():
            if entry.opening.done() and not entry.opening.cancelled() and entry.opening.exception() is None:
                entry.opening.result().check_health()

    async def close(self) -> None:
        entries, self._entries = list(self._entries.values()), {}
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in entries:
            await self._close(entry)
        await self._registry.close()
