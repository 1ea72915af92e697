"""One catalogue that a Retriever has open: its current index version, followed when another is made current, and what answers from it.

Ranking is `matinee.recommend.recommender`, all other messages are `serve.graph.index_service`. Has a thread of its own for ranking, so
no catalogue waits for the rankings of another. Healthy without an index, and while another replica still holds the embedded one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from matinee.errors import DeadlineError, IndexAbsentError, IndexLockedError, IndexUnavailableError, MatineeError
from matinee.filters.attributes import Attribute
from matinee.index.active import ActiveIndex
from matinee.index.build import build_empty
from matinee.index.progress import NOTE_S
from matinee.index.protocols import Index, IndexStore
from matinee.index.redeclare import redeclare
from matinee.index.types import Manifest
from matinee.lanes import LaneThread
from matinee.recommend.queries import Query, RankedItems
from matinee.recommend.recommender import Recommender
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.index_service import IndexService
from serve.graph.messages import RetrieverMessage
from serve.graph.microbatch import in_time
from serve.graph.wire import QueuedMessage
from serve.telemetry.index_health import IndexHealth
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

HANDOVER_S = 10.0
"""How long calls wait for an embedded index that another replica holds: in a roll-over it stops once this one is up, in about 3 s."""
LOCKED_WATCH_S = 0.1


class OpenCatalogue:
    """The catalogue of `settings`. Follows the store's current version every `watch_s` seconds. Closes the store at its end."""

    def __init__(self, settings: Settings, store: IndexStore, metrics: Metrics, watch_s: float) -> None:
        self._settings = settings
        self._store = store
        self._health = IndexHealth(metrics, settings.catalogue)
        self.active = ActiveIndex(store)
        self.service = IndexService(store, self.active, lambda: self._failure, settings.index.exact_facets_below)
        self.thread = LaneThread("rank")
        self._recommenders: dict[str, Recommender] = {}
        self._watch_s = watch_s
        self._watcher: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._failure: MatineeError | None = None
        self._handover_ends = float("-inf")

    async def start(self) -> None:
        """Open the current version, if there is one, and keep following: also one that the replica before has to give up first."""
        self._handover_ends = time.monotonic() + HANDOVER_S
        await self._follow()
        self._watcher = asyncio.create_task(self._watch())

    def reconfigure(self, settings: Settings) -> None:
        """Rank by other settings of search from now on."""
        self._settings = settings
        self._recommenders = {}

    async def create_index(self, manifest: Manifest) -> bool:
        """Make a first version without items, and follow it. False where there is a version already."""
        made = await build_empty(self._store, manifest)
        await self._follow()
        return made

    async def redeclare(self, attributes: Mapping[str, Attribute], before_switch: Callable[[], Awaitable[None]]) -> None:
        """Copy the current version under other attributes, and follow the copy."""
        keep = self._settings.index.keep_versions
        await redeclare(self._store, self.service.index(), attributes, keep=keep, before_switch=before_switch)
        await self._follow()

    @property
    def trouble(self) -> str | None:
        """Why the store's current version can't be followed; an older one may be open."""
        return None if self._failure is None else str(self._failure)

    @property
    def _locked(self) -> bool:
        return isinstance(self._failure, IndexLockedError) and self.active.manifest is None

    async def _watch(self) -> None:
        looked = float("-inf")
        while True:
            await asyncio.sleep(min(LOCKED_WATCH_S, self._watch_s) if self._locked else self._watch_s)
            await self._follow()
            if time.monotonic() - looked > NOTE_S:
                looked = time.monotonic()
                with suppress(MatineeError):
                    self._health.record_build(await self.service.build())

    async def _follow(self) -> None:
        try:
            await self._refresh()
        except MatineeError as error:
            self._record_failure(error)
        except Exception as error:
            # A broken version must not end the replica: the version that is open keeps serving.
            log.exception("following the current index version failed")
            self._health.record_check(error)
            self._failure = IndexUnavailableError("the current index version can't be opened; see the Retriever's log")

    async def _refresh(self) -> None:
        changed = await self.active.refresh(recover=self.active.manifest is None)
        self._failure = None
        self._opened.set()
        self._health.record_check(None)
        if changed and self.active.manifest is not None:
            self._health.record_version(self.active.manifest)

    def _record_failure(self, error: MatineeError) -> None:
        if str(error) != self.trouble:
            log.warning("%s", error)
        self._failure = error if isinstance(error, IndexAbsentError | IndexLockedError) else IndexUnavailableError(str(error))
        self._health.record_check(error)

    async def _wait_handover(self) -> None:
        """Wait while the replica before this one still holds the index, at most until the handover must have ended."""
        if self._locked:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._handover_ends - time.monotonic()):
                    await self._opened.wait()

    async def answer(self, batch: Sequence[QueuedMessage[RetrieverMessage[object]]]) -> list[object]:
        """The results of messages that are answered together: rankings that go through the engine in one call, or one other message."""
        await self._wait_handover()
        results: dict[int, object] = {}
        ranks: dict[int, messages.Rank] = {}
        for i, ((message, *_), answerable) in enumerate(zip(batch, in_time(batch), strict=True)):
            if not answerable:
                results[i] = DeadlineError("retriever: the deadline had passed before the work began")
            elif isinstance(message, messages.Rank):
                ranks[i] = message
            elif isinstance(message, messages.SingleMessage):
                results[i] = await self._answer_or_error(message)
            else:
                raise TypeError(f"not a message to the Retriever: {type(message).__name__}")
        results |= zip(ranks, await self._rank([*ranks.values()]), strict=True)
        answers = [results[i] for i in range(len(batch))]
        # It knows its own state without the store.
        self._health.record_results(
            result for queued, result in zip(batch, answers, strict=True) if not isinstance(queued.message, messages.ReadStatus)
        )
        return answers

    async def _answer_or_error(self, message: messages.SingleMessage[T]) -> T | MatineeError:
        try:
            return await message.answer(self.service)
        except MatineeError as error:
            return error

    async def _rank(self, ranks: Sequence[messages.Rank]) -> list[RankedItems | MatineeError]:
        results: dict[int, RankedItems | MatineeError] = {}
        by_version: dict[str, tuple[Recommender, list[int]]] = {}
        for i, rank in enumerate(ranks):
            try:
                index = self.service.index(rank.fingerprint)
            except MatineeError as error:
                results[i] = error
                continue
            by_version.setdefault(index.manifest.version, (self._recommender(index), []))[1].append(i)
        for recommender, rows in by_version.values():
            queries: list[Query] = [ranks[i].query for i in rows]
            try:
                answers = await recommender.answer(queries)
            except MatineeError as error:
                answers = [error] * len(rows)
            results |= zip(rows, answers, strict=True)
        return [results[i] for i in range(len(ranks))]

    def _recommender(self, index: Index) -> Recommender:
        version = index.manifest.version
        if version not in self._recommenders:
            kept = dict(list(self._recommenders.items())[-1:])
            self._recommenders = kept | {
                version: Recommender(
                    index,
                    self._settings.search,
                    language=self._settings.embedder.language,
                    reasons_in=self._settings.language,
                    offload=self._offload,
                )
            }
        return self._recommenders[version]

    async def _offload(self, work: Callable[[], T]) -> T:
        return await self.thread.run(work)

    def check_health(self) -> None:
        """Raises if the index can't be followed any more, or if a thread hangs. An unreachable store is no illness."""
        if self._watcher is not None and self._watcher.done():
            raise RuntimeError("the watcher of the index version has died")
        self.thread.check_health(self._settings.index.hang_s)
        self.active.check_health(self._settings.index.hang_s)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await self.service.wait()
        await self.active.close()
        await self.thread.close()
        self._health.record_close()
