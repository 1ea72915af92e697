"""A replica that answers with a model: the base of the Embedder's and the Enhancer's.

It holds the model slot, joins the batches of all gateways, and records what its model does. Knows neither model, nor Ray.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from matinee.errors import MatineeError
from matinee.models.gpu import limit_memory
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.tree import Settings
from serve.graph.messages import Json, catalogue_of
from serve.graph.microbatch import Lane, MicroBatcher, as_completed, errors_as_results
from serve.graph.model_slot import ModelSlot, announce, apply_update
from serve.graph.wire import QueuedMessage, WireMessage, from_wire
from serve.telemetry.batches import BatchTelemetry
from serve.telemetry.metrics import Metrics

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


class ModelReplica(ABC, Generic[Model, PartSettings, Sent, Result]):
    """Answers messages with a model. The model is loaded by the first `reconfigure`: only then is it known which one."""

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
        self._part = part
        self._base: PartSettings = part_settings
        self._settings = settings
        self._metrics = metrics
        self._labels: dict[str, str] | None = None
        self._telemetry = BatchTelemetry(part, settings.tracing, metrics)
        self._max_batch, self._max_waiting, self._max_wait_s = max_batch, max_waiting, max_wait_s
        self._slot: ModelSlot[Model, PartSettings] | None = None
        self._batcher: MicroBatcher[Sent, Result] | None = None

    @property
    def slot(self) -> ModelSlot[Model, PartSettings]:
        assert self._slot is not None, "`reconfigure` comes first"  # noqa: S101
        return self._slot

    @property
    def batcher(self) -> MicroBatcher[Sent, Result]:
        assert self._batcher is not None, "`reconfigure` comes first"  # noqa: S101
        return self._batcher

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Load the model of the settings and `user_config`; later calls replace it while the old model goes on answering.

        Serve calls it once before the replica takes work, and at every in-place update.
        """
        settings = apply_update(self._base, user_config)
        if self._slot is None:
            self._base = settings
            limit_memory(settings.deployment.num_gpus)
            slot = self._slot = ModelSlot(self._part, settings, self.load, self._announce, self._metrics, hang_s=settings.hang_s)
            self._batcher = MicroBatcher(
                self._part,
                lambda batch, early: slot.run(self._answer, batch, deadline=max(queued.deadline for queued in batch)),
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
        else:
            self._slot.update(settings)

    async def call(self, batch: Sequence[WireMessage[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message; batches of several gateways join while the model is busy."""
        return errors_as_results(await asyncio.gather(*(self.batcher(*from_wire(hop)) for hop in batch), return_exceptions=True))

    async def stream(self, batch: Sequence[WireMessage[Sent]]) -> AsyncIterator[list[tuple[int, Result | MatineeError]]]:
        """Like `call`, but yields each result as soon as it is known, with its place in the batch."""
        async for answers in as_completed([self.batcher(*from_wire(hop)) for hop in batch]):
            yield answers

    def check_health(self) -> None:
        """Raises where the model hangs. Serve then replaces the replica."""
        if self._slot is not None:
            self._slot.check_health()

    def waits_for_queries(self, message: Sent) -> bool:
        """Whether a message lets others go first, though it is not bulk work."""
        return False

    @abstractmethod
    def cost(self, message: Sent) -> int:
        """How much of `max_batch` a message takes."""

    @abstractmethod
    def load(self, settings: PartSettings) -> Model:
        """The model of `settings`, warmed up."""

    @abstractmethod
    def labels(self, model: Model) -> tuple[str, str, str]:
        """Name, precision and fingerprint of a model, as metrics show them."""

    @abstractmethod
    def _answer(self, model: Model, batch: Sequence[QueuedMessage[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message. Runs in the model's thread."""

    def _announce(self, model: Model) -> None:
        name, precision, fingerprint = self.labels(model)
        labels = {"part": self._part, "model": name, "precision": precision, "fingerprint": fingerprint[:16]}
        self._labels = announce(self._metrics, self._labels, labels)

    async def info(self) -> Json:
        return self.slot.model.info() | {"trouble": self.slot.trouble}

    async def clock(self) -> float:
        """Seconds since 1970, as this machine has it."""
        return time.time()

    def close(self) -> None:
        self._telemetry.close()

    def __del__(self) -> None:
        # Serve ends a replica so. One whose constructor failed has nothing to close.
        if hasattr(self, "_telemetry"):
            self.close()
