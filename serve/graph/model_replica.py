"""A replica that answers with a model: the base of the Embedder's and the Enhancer's.

It loads the model, joins the batches of all gateways, and records what the model does: in the server's own process, or in a deployment.
Knows neither model, nor Ray.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from matinee.errors import MatineeError
from matinee.models.gpu import limit_memory
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.tree import Settings
from serve.errors import UnavailableError
from serve.graph.clock_skew import ReplicaClock
from serve.graph.lane_queue import Lane
from serve.graph.messages import Json, catalogue_of
from serve.graph.microbatch import MicroBatcher, as_completed, errors_as_results
from serve.graph.model_slot import ModelSlot, apply_update
from serve.graph.wire import QueuedMessage, WireMessage, from_wire
from serve.telemetry.batches import BatchTelemetry
from serve.telemetry.declare import CurrentLabels
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""How long after a failed load the next message tries again."""
_SECOND_SHARE = 0.5
"""Share of the model's time for requests that let queries go first but are not bulk work."""


class LoadedModel(Protocol):
    """What both models can do."""

    def info(self) -> Json: ...


Model = TypeVar("Model", bound=LoadedModel)


class ModelMessage(Protocol):
    """What both models' messages say of themselves."""

    @property
    def bulk(self) -> bool: ...


PartSettings = TypeVar("PartSettings", EmbedderSettings, EnhancerSettings)
Sent = TypeVar("Sent", bound=ModelMessage)
Result = TypeVar("Result")


class ModelReplica(ReplicaClock, ABC, Generic[Model, PartSettings, Sent, Result]):
    """Answers messages with a model, which is loaded at the start (`loads_at_start`) or for the first message.

    A load that failed is tried again after a pause.
    """

    def __init__(
        self,
        part: str,
        part_settings: PartSettings,
        settings: Settings,
        metrics: Metrics,
        *,
        max_batch: int,
        max_waiting: int,
        max_wait_s: float,
    ) -> None:
        self.part = part
        self._base: PartSettings = part_settings
        self._target: PartSettings = part_settings
        self._settings = settings
        self._metrics = metrics
        self._current = CurrentLabels(metrics.model_info)
        self._telemetry = BatchTelemetry(part, settings.tracing, metrics)
        self._max_batch, self._max_waiting, self._max_wait_s = max_batch, max_waiting, max_wait_s
        self._slot: ModelSlot[Model, PartSettings] | None = None
        self._batcher: MicroBatcher[Sent, Result] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._failed_at = float("-inf")

    @property
    def slot(self) -> ModelSlot[Model, PartSettings]:
        assert self._slot is not None, "its model is not loaded"  # noqa: S101
        return self._slot

    @property
    def batcher(self) -> MicroBatcher[Sent, Result]:
        assert self._batcher is not None, "its model is not loaded"  # noqa: S101
        return self._batcher

    # the model

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Serve calls it once before the replica takes work, and at every in-place update. Raises what a load at the start raises."""
        self.update(user_config)
        if self.loads_at_start:
            await self.load()

    def update(self, user_config: Mapping[str, object]) -> None:
        """Replace the settings: for the load, or, while the old model goes on answering, by another load."""
        self._target, self._failed_at = apply_update(self._base, user_config), float("-inf")
        if self._slot is not None:
            self._slot.update(self._target)
            self.configure_batcher(self._target)

    def load(self) -> "asyncio.Task[None]":
        """Load the model in a thread, once; the task raises what the load raised. After a failure, `RETRY_S` must pass before another."""
        again = self._trouble is not None and time.monotonic() - self._failed_at > RETRY_S
        if self._loading is None or (self._loading.done() and again):
            self._loading = asyncio.create_task(self._load(), name=f"load the {self.part}")
        return self._loading

    async def _load(self) -> None:
        target = self._target
        try:
            await asyncio.to_thread(self.open)
        except Exception as error:
            self._trouble, self._failed_at = str(error), time.monotonic()
            log.error("%s: the model did not load: %s", self.part, error, exc_info=not isinstance(error, MatineeError))
            raise
        self._trouble = None
        if self._target is not target:
            # An update came while it loaded.
            self.slot.update(self._target)
            self.configure_batcher(self._target)

    def open(self) -> None:
        """Load the model in this thread, and take work from then on."""
        settings = self._base = self._target
        limit_memory(settings.deployment.num_gpus)
        slot = ModelSlot(self.part, settings, self.load_model, self._announce, self._metrics, hang_s=settings.hang_s)
        batcher: MicroBatcher[Sent, Result] = MicroBatcher(
            self.part,
            lambda batch, on_result: slot.run(self._answer, batch, deadline=max(queued.deadline for queued in batch)),
            max_batch=self._max_batch,
            max_in_flight=1,
            lanes=[
                Lane(self._max_waiting, max_wait_s=self._max_wait_s),
                # One request may bring many of these, and must not fill the queue against itself.
                Lane(self._max_waiting, _SECOND_SHARE),
                Lane(settings.bulk_waiting, settings.bulk_share),
            ],
            lane_of=lambda message: 2 if message.bulk else int(self.waits_for_queries(message)),
            cost=self.cost,
            catalogue_of=catalogue_of,
        )
        self._slot, self._batcher = slot, batcher
        self.configure_batcher(settings)

    async def _wait_loaded(self, *deadlines: float) -> MicroBatcher[Sent, Result]:
        loading = self.load()
        await asyncio.wait({loading}, timeout=max(0.0, max(deadlines) - time.monotonic()))
        if not loading.done():
            raise UnavailableError(f"{self.part}: its model still loads; ask again in a moment")
        if self._batcher is None:
            raise UnavailableError(f"{self.part}: its model did not load ({self._trouble})")
        return self._batcher

    # its work: all of it waits for the model until its deadline, and raises `UnavailableError` if that is not there by then

    async def __call__(self, message: Sent, deadline: float) -> Result:
        """The result of a message of this process."""
        return await (self._batcher or await self._wait_loaded(deadline))(message, deadline)

    async def call(self, batch: Sequence[WireMessage[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message; batches of several gateways join while the model is busy."""
        queued = [from_wire(message) for message in batch]
        batcher = self._batcher or await self._wait_loaded(*(each.deadline for each in queued))
        return errors_as_results(await asyncio.gather(*(batcher(*each) for each in queued), return_exceptions=True))

    async def stream(self, batch: Sequence[WireMessage[Sent]]) -> AsyncIterator[list[tuple[int, Result | MatineeError]]]:
        """Like `call`, but yields each result as soon as it is known, with its place in the batch."""
        queued = [from_wire(message) for message in batch]
        batcher = self._batcher or await self._wait_loaded(*(each.deadline for each in queued))
        async for results in as_completed([batcher(*each) for each in queued]):
            yield results

    def check_health(self) -> None:
        """Raises where the model hangs. Serve then replaces the replica."""
        if self._slot is not None:
            self._slot.check_health()

    @property
    def loads_at_start(self) -> bool:
        """Whether the model is loaded with the replica, which fails if that does."""
        return True

    def configure_batcher(self, settings: PartSettings) -> None:
        """Set how the batches of a model of `settings` are made, where that is not the same for all."""

    def waits_for_queries(self, message: Sent) -> bool:
        """Whether a message lets others go first, though it is not bulk work."""
        return False

    @abstractmethod
    def cost(self, message: Sent) -> int:
        """How much of `max_batch` a message takes."""

    @abstractmethod
    def load_model(self, settings: PartSettings) -> Model:
        """The model of `settings`, warmed up."""

    @abstractmethod
    def labels(self, model: Model) -> tuple[str, str, str]:
        """Name, precision and fingerprint of a model, as metrics show them."""

    @abstractmethod
    def _answer(self, model: Model, batch: Sequence[QueuedMessage[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message. Runs in the model's thread."""

    def _announce(self, model: Model) -> None:
        name, precision, fingerprint = self.labels(model)
        self._current.show(part=self.part, model=name, precision=precision, fingerprint=fingerprint[:16])

    async def info(self) -> Json:
        if self._slot is None:
            return {"model": self._target.model, "loaded": False, "trouble": self._trouble}
        return self.slot.model.info() | {"trouble": self.slot.trouble}

    async def close(self) -> None:
        if self._loading is not None:
            # A load can't be interrupted, and its thread would keep the process.
            with suppress(Exception):
                await self._loading
        self._telemetry.close()

    def __del__(self) -> None:
        # Serve ends a replica so. One whose constructor failed has nothing to close.
        if hasattr(self, "_telemetry"):
            self._telemetry.close()
