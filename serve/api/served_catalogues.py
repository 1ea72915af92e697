"""What one gateway has for each catalogue that it serves: its answers, writes, imports, events and health.

The default catalogue is always there. Another one is looked up in the Retriever's registry, and what it needs is made when a request first
asks for it. Background work is done for the catalogues that are open in the Retriever, and for those with an import under way.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from matinee.errors import MatineeError
from matinee.index.registry import CatalogueRecord, absent
from matinee.settings.tree import Settings
from serve.api.auth import Caller
from serve.api.events import Events
from serve.graph import messages
from serve.graph.bulk import Bulk
from serve.graph.concurrency import Sharing
from serve.graph.context import RequestContext
from serve.graph.gateway import Gateway
from serve.graph.health import Health
from serve.graph.import_jobs import ImportJobs
from serve.graph.item_writes import ItemWrites
from serve.graph.remote_source import RemoteSource
from serve.graph.tasks import BackgroundWork

log = logging.getLogger(__name__)

FRESH_S = 10.0
"""How long a gateway goes on with what it read in the registry. The Retriever refuses what is deleted at once."""
_LOOK_S = 0.2
_POLL_S = 5.0


@dataclass(frozen=True)
class ServedCatalogue:
    """One catalogue, as the routes use it."""

    name: str
    gateway: Gateway
    writes: ItemWrites
    imports: ImportJobs
    bulk: Bulk
    remote: RemoteSource
    events: Events
    health: Health

    @property
    def max_line_bytes(self) -> int:
        """Of one item as a line of JSON."""
        return self.gateway.settings.serving.max_body_bytes

    def start(self) -> None:
        self.writes.start()
        self.imports.start()

    async def stop(self) -> None:
        await self.imports.stop()
        await self.writes.stop()


class ServedCatalogues(BackgroundWork):
    """All catalogues of one gateway."""

    def __init__(self, gateway: Gateway, bulk: Bulk, sharing: Sharing) -> None:
        self.gateway = gateway
        self._bulk = bulk
        self._sharing = sharing
        self._events = Events(gateway.settings, gateway.metrics)
        self.default = self._make(gateway, self._events)
        self._others: dict[str, ServedCatalogue] = {}
        self._records: Mapping[str, CatalogueRecord] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._working: set[str] = set()

    def _make(self, gateway: Gateway, events: Events) -> ServedCatalogue:
        writes = ItemWrites(gateway)
        imports, serving = ImportJobs(gateway, writes, self._bulk), gateway.settings.serving
        remote = RemoteSource(serving.imports.sources, serving.bulk)
        return ServedCatalogue(gateway.settings.catalogue, gateway, writes, imports, self._bulk, remote, events, Health(gateway))

    def knows(self, name: str) -> bool:
        """Whether there was a catalogue of this name when the registry was last read."""
        return name == self.default.name or name in self._records

    async def find(self, name: str, sender: Caller, context: RequestContext) -> ServedCatalogue:
        """Raises a 404 where there is no such catalogue; it names those that `sender` may see."""
        if name == self.default.name:
            return self.default
        served = await self._look_up(name, context)
        if served is None:
            raise absent(name, self.visible(sender))
        return served

    async def _look_up(self, name: str, context: RequestContext) -> ServedCatalogue | None:
        age = time.monotonic() - self._read_at
        if age > FRESH_S or (name not in self._records and age > _LOOK_S):
            await self.refresh(context)
        record = self._records.get(name)
        if record is None or record.state == "deleting":
            return None
        if name not in self._others:
            settings: Settings = record.settings(self.gateway.settings)
            events = Events(settings, self.gateway.metrics, beside=self._events)
            self._others[name] = self._make(self.gateway.in_catalogue(settings), events)
        return self._others[name]

    def visible(self, sender: Caller) -> list[str]:
        """The names that `sender` may see, the default one first."""
        names = [self.default.name] if sender.sees(self.default.name, default=True) else []
        return names + [name for name in sorted(self._records) if sender.sees(name, default=False)]

    async def refresh(self, context: RequestContext) -> None:
        """Read the registry now."""
        async with self._reading:
            records = await self.gateway.manage(messages.CatalogueRecords(), context)
            for name in list(self._others):
                known, record = self._records.get(name), records.get(name)
                if known is None or record is None or (known.created, known.search) != (record.created, record.search):
                    await self._stop(name)
                    del self._others[name]
            self._records, self._read_at = records, time.monotonic()
            self._sharing.several = bool(records)

    # background work

    def start(self) -> None:
        self.default.start()
        super().start()

    async def _run(self) -> None:
        while True:
            try:
                await self.work()
            except MatineeError as error:
                log.info("the catalogues' background work waits: %s", error)
            except Exception:
                # Nobody awaits this task, and its end would leave their imports waiting.
                log.exception("looking for the catalogues' background work failed; it goes on")
            await asyncio.sleep(_POLL_S)

    async def work(self) -> None:
        """Start the background work of the catalogues that may have some, and stop that of the others."""
        context = self.gateway.new_context()
        await self.refresh(context)
        busy = set(await self.gateway.manage(messages.BusyCatalogues(), context))
        for name in self._working - busy:
            await self._stop(name)
        for name in busy - self._working:
            if (served := await self._look_up(name, context)) is not None:
                served.start()
                self._working.add(name)

    async def _stop(self, name: str) -> None:
        if name in self._working:
            self._working.discard(name)
            await self._others[name].stop()

    async def stop(self) -> None:
        await super().stop()
        for name in list(self._working):
            await self._stop(name)
        await self.default.stop()
        await asyncio.to_thread(self._events.close)


def all_catalogues(request: Request) -> ServedCatalogues:
    """What the app serves."""
    return cast(ServedCatalogues, request.app.state.served)


def catalogue(request: Request) -> ServedCatalogue:
    """The catalogue that a request is about, as the middleware found it."""
    return cast(ServedCatalogue, request.state.catalogue)
