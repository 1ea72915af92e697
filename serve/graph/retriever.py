"""The Retriever's replica: the indexes of all catalogues, searched in batches. CPU only; exactly one replica on the embedded engine.

A thin shell: what answers from one index is `serve.graph.open_catalogue`, which catalogues are open is
`serve.graph.catalogues`, and what is asked about them `serve.graph.catalogue_service`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from matinee.errors import MatineeError
from matinee.index.factory import open_registry, open_store
from matinee.index.protocols import IndexStore
from matinee.index.registry import CatalogueRegistry
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.catalogue_service import CatalogueService
from serve.graph.catalogues import Catalogues
from serve.graph.clock_skew import ReplicaClock
from serve.graph.messages import RetrieverMessage
from serve.graph.microbatch import as_completed
from serve.graph.open_catalogue import OpenCatalogue
from serve.graph.ranking_groups import group_rankings
from serve.graph.wire import QueuedMessage, WireMessage, from_wire
from serve.telemetry.batches import BatchTelemetry
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")


class RetrieverReplica(ReplicaClock):
    """Answers `messages.RetrieverMessage`s. Follows the stores' current versions every `watch_s` seconds.

    `store` is the default catalogue's, `store_of` opens those of the others.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        watch_s: float = 1.0,
        store: IndexStore | None = None,
        store_of: Callable[[Settings], IndexStore] = open_store,
        registry: CatalogueRegistry | None = None,
    ) -> None:
        self._telemetry = BatchTelemetry("retriever", settings.tracing, metrics)
        self._watch_s = watch_s
        registry = registry or open_registry(settings)
        self.default = OpenCatalogue(settings, store or store_of(settings), metrics, watch_s)
        self.catalogues = Catalogues(
            settings,
            self.default,
            registry,
            store_of,
            lambda other, its: OpenCatalogue(other, its, metrics, watch_s),
            watch_s=watch_s,
        )
        self._catalogue_service = CatalogueService(settings, self.catalogues, registry, store_of)
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the default catalogue's current version, if there is one, and keep following."""
        await self.default.start()
        self._watcher = asyncio.create_task(self._watch())

    @property
    def trouble(self) -> str | None:
        """Why the default catalogue's current version can't be followed; an older one may be open."""
        return self.default.trouble

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                await self.catalogues.close_idle()
            except Exception as error:  # noqa: BLE001  the next round tries again
                log.warning("closing idle catalogues failed: %s", error)

    async def call(self, batch: Sequence[WireMessage[RetrieverMessage[object]]]) -> list[object]:
        """One result or `MatineeError` for each message, in order."""
        results = {place: result async for pairs in self.stream(batch) for place, result in pairs}
        return [results[place] for place in range(len(batch))]

    async def stream(self, batch: Sequence[WireMessage[RetrieverMessage[object]]]) -> AsyncIterator[list[tuple[int, object]]]:
        """Results with their places in the batch, as soon as they are known: a slow query delays only those like it."""
        queued = [from_wire(hop) for hop in batch]
        groups = group_rankings([message for message, *_ in queued])
        async for answered in as_completed([self.answer([queued[place] for place in group]) for group in groups]):
            yield [pair for n, results in answered for pair in zip(groups[n], _each(results, groups[n]), strict=True)]

    async def answer(self, batch: Sequence[QueuedMessage[RetrieverMessage[object]]]) -> list[object]:
        """The results of messages that are answered together: of one message, or of rankings that are alike."""
        with self._telemetry(batch) as handled:
            first = batch[0].message
            if isinstance(first, messages.In):
                handled += await self._answer_in(first.catalogue, batch)
            elif isinstance(first, messages.CataloguesMessage):
                handled += [await self._answer_or_error(first)]
            else:
                handled += await self.default.answer(batch)
        return handled

    async def _answer_in(self, name: str, batch: Sequence[QueuedMessage[RetrieverMessage[object]]]) -> list[object]:
        """The results of messages to one catalogue beside the default one. Looking for background work does not open it."""
        inner = [queued._replace(message=messages.inner_of(queued.message)) for queued in batch]
        try:
            if isinstance(inner[0].message, messages.PASSIVE):
                return [await self.catalogues.peek(name, inner[0])]
            async with self.catalogues.use(name) as catalogue:
                return await catalogue.answer(inner)
        except MatineeError as error:
            return [error] * len(batch)

    async def _answer_or_error(self, message: messages.CataloguesMessage[T]) -> T | MatineeError:
        try:
            return await message.answer(self._catalogue_service)
        except MatineeError as error:
            return error

    def check_health(self) -> None:
        """Raises if the replica can't follow an index any more, or if one of its threads hangs. Ray Serve then replaces the replica.

        A missing index or an unreachable store does not make the replica unhealthy.
        """
        if self._watcher is not None and self._watcher.done():
            raise RuntimeError("the watcher of the catalogues has died")
        self.default.check_health()
        self.catalogues.check_health()

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await self.catalogues.close()
        await self.default.close()
        await asyncio.to_thread(self._telemetry.close)


def _each(results: list[object] | MatineeError, group: Sequence[int]) -> list[object]:
    return [results] * len(group) if isinstance(results, MatineeError) else results
