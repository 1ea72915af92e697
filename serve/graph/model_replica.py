"""A replica that answers with a model: the base of the Embedder's and the Enhancer's.

It holds the model slot, joins the batches of all gateways, and records what its model does. Knows neither model, nor Ray.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from matinee.errors import MatineeError
from matinee.settings.tree import Settings
from serve.graph.microbatch import MicroBatcher, Queued, errors_as_results
from serve.graph.model_slot import ModelSlot, announce, updated
from serve.telemetry.batches import BatchTelemetry
from serve.telemetry.metrics import Metrics


class LoadedModel(Protocol):
    """What both models can do."""

    def info(self) -> dict[str, Any]: ...


Model = TypeVar("Model", bound=LoadedModel)
PartSettings = TypeVar("PartSettings", bound=BaseModel)
Sent = TypeVar("Sent")
Result = TypeVar("Result")


class ModelReplica(ABC, Generic[Model, PartSettings, Sent, Result]):
    """Answers messages with a model. The model is loaded by the first `reconfigure`: only then is it known which one."""

    def __init__(
        self, part: str, part_settings: PartSettings, settings: Settings, metrics: Metrics, *, max_batch: int, max_waiting: int
    ) -> None:
        self._part = part
        self._base = part_settings
        self._settings = settings
        self._metrics = metrics
        self._labels: dict[str, str] | None = None
        self._telemetry = BatchTelemetry(part, settings.tracing, metrics)
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._slot: ModelSlot[Model, PartSettings] | None = None
        self._batcher: MicroBatcher[Sent, Result] | None = None

    @property
    def slot(self) -> ModelSlot[Model, PartSettings]:
        assert self._slot is not None, "`reconfigure` comes first"  # noqa: S101
        return self._slot

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Load the model of the settings and `user_config`; later calls replace it while the old model goes on answering.

        Serve calls it once before the replica takes work, and at every in-place update.
        """
        wanted = updated(self._base, user_config)
        if self._slot is None:
            self._base = wanted
            slot = self._slot = ModelSlot(self._part, wanted, self.load, self._announce, self._metrics)
            self._batcher = MicroBatcher(
                self._part,
                lambda batch: slot.run(self._answer, batch),
                max_batch=self._max_batch,
                max_in_flight=1,
                max_waiting=self._max_waiting,
            )
        else:
            self._slot.update(wanted)

    async def call(self, batch: Sequence[Queued[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message; batches of several gateways join while the model is busy."""
        batcher = self._batcher
        assert batcher is not None, "`reconfigure` comes first"  # noqa: S101
        return errors_as_results(await asyncio.gather(*(batcher(*queued) for queued in batch), return_exceptions=True))

    @abstractmethod
    def load(self, settings: PartSettings) -> Model:
        """The model of `settings`, warmed up."""

    @abstractmethod
    def labels(self, model: Model) -> tuple[str, str, str]:
        """Name, precision and fingerprint of a model, as metrics show them."""

    @abstractmethod
    def _answer(self, model: Model, batch: Sequence[Queued[Sent]]) -> list[Result | MatineeError]:
        """One result or `MatineeError` for each message. Runs in the model's thread."""

    def _announce(self, model: Model) -> None:
        name, precision, fingerprint = self.labels(model)
        labels = {"part": self._part, "model": name, "precision": precision, "fingerprint": fingerprint[:16]}
        self._labels = announce(self._metrics, self._labels, labels)

    async def info(self) -> dict[str, Any]:
        return self.slot.model.info() | {"trouble": self.slot.trouble}

    def close(self) -> None:
        self._telemetry.close()

    def __del__(self) -> None:
        # Serve ends a replica so. One whose constructor failed has nothing to close.
        if hasattr(self, "_telemetry"):
            self.close()
