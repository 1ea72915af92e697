"""The catalogues of one Retriever: the default one, always open, and those of the registry, opened when a message first needs them.

At most `index.catalogues.open` of these are open at once; one without a message for `index.catalogues.idle_s` seconds is closed. A
catalogue that is deleted takes no new message, ends those under way, and is then removed. Does not know what messages mean.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from matinee.errors import MatineeError, OverloadedError
from matinee.index.protocols import IndexStore, closing
from matinee.index.registry import CatalogueRecord, CatalogueRegistry, absent
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.messages import RetrieverMessage
from serve.graph.open_catalogue import OpenCatalogue
from serve.graph.tasks import OngoingChanges
from serve.graph.wire import QueuedMessage

_FIRST = "00000000-0000-0000-0000-000000000000"


@dataclass
class _Entry:
    """A catalogue that is open, or being opened: how many messages are under way in it, and when the last one came."""

    record: CatalogueRecord
    opening: "asyncio.Task[OpenCatalogue]"
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Catalogues(OngoingChanges):
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
        super().__init__()
        self._settings = settings
        self._default = default
        self._registry = registry
        self._store_of = store_of
        self._make = open
        self._watch_s = watch_s
        self._clock = time.monotonic
        self._entries: dict[str, _Entry] = {}
        self._records: dict[str, CatalogueRecord] = {}
        self.without_imports: dict[str, str] = {}
        """Name -> creation of closed catalogues which were looked into, and have no import that is not over."""
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    # one catalogue

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[OpenCatalogue]:
        """The catalogue `name`, open until the end of the `with`. Raises where there is none, or where too many are open and at work."""
        if name == self._settings.catalogue:
            yield self._default
            return
        record = await self.find(name)
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
        if entry is None and isinstance(queued.message, messages.Pending) and (await self.find(name)).pending and self._has_room:
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
        async with closing(self._store_of((await self.find(name)).settings(self._settings))) as store:
            jobs = await store.imports().jobs()
        return [job for job in jobs if not job.is_over or not queued.message.unfinished]

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

    @property
    def opened(self) -> list[str]:
        """Those of the registry that are open, or being opened."""
        return list(self._entries)

    async def get_open(self, name: str) -> OpenCatalogue | None:
        """The catalogue, if it is open or being opened."""
        if name == self._settings.catalogue:
            return self._default
        entry = self._entries.get(name)
        return None if entry is None else await self._wait_open(entry)

    async def remove(self, name: str) -> None:
        """Close one that is being deleted, once no message is under way in it. Nobody opens it from here on."""
        self.reread()
        if (entry := self._entries.pop(name, None)) is not None:
            await self._close(entry)

    @property
    def _has_room(self) -> bool:
        return len(self._entries) < self._settings.index.catalogues.open

    def _add(self, record: CatalogueRecord) -> _Entry:
        before = self._entries.pop(record.name, None)
        if before is not None:
            # Of the same name, but deleted and created again by another process.
            self.spawn(self._close(before))
        if not self._has_room:
            self._evict()
        self.without_imports.pop(record.name, None)
        entry = self._entries[record.name] = _Entry(record, asyncio.create_task(self._open(record)), used=self._clock())
        return entry

    def _evict(self) -> None:
        """Close the catalogue that was used least recently."""
        free = [(entry.used, name) for name, entry in self._entries.items() if not entry.users]
        if not free:
            most = self._settings.index.catalogues.open
            raise OverloadedError(f"{most} catalogues are open and at work (index.catalogues.open); ask again in a moment")
        self.spawn(self._close(self._entries.pop(min(free)[1])))

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
            self.reread()

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

    async def find(self, name: str) -> CatalogueRecord:
        """The record of a catalogue that is not being deleted. Raises where there is none."""
        record = self._records.get(name)
        if record is None or self._clock() - self._read_at > self._watch_s:
            record = (await self.records()).get(name)
        if record is None or record.state == "deleting":
            raise absent(name)
        return record

    def reread(self) -> None:
        """The registry has changed: whoever needs it next reads it."""
        self._read_at = float("-inf")

    def check_health(self) -> None:
        """Raises where a catalogue that is open is ill."""
        for entry in self._entries.values():
            if entry.opening.done() and not entry.opening.cancelled() and entry.opening.exception() is None:
                entry.opening.result().check_health()

    async def close(self) -> None:
        entries, self._entries = list(self._entries.values()), {}
        await self.wait()
        for entry in entries:
            await self._close(entry)
        await self._registry.close()
