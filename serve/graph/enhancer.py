"""The Enhancer's replica: items -> checked descriptions, batched across gateways. A shell around `matinee.models.enhancer`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matinee.errors import MatineeError
from matinee.items import NO_KIND, Item
from matinee.models.types import Description
from matinee.settings.models import EnhancerSettings
from matinee.settings.tree import Settings
from serve.graph.messages import Describe, Json
from serve.graph.model_replica import ModelReplica
from serve.graph.wire import QueuedMessage
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from matinee.models.enhancer import Enhancer

_WARM_UP = Item(kind=NO_KIND, title="Warm up", year=2000, genres=("Drama",))


class EnhancerReplica(ModelReplica["Enhancer", EnhancerSettings, Describe, Description]):
    """Answers `messages.Describe`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        enhancer = settings.enhancer
        super().__init__(
            "enhancer",
            enhancer,
            settings,
            metrics,
            max_batch=enhancer.batch_size,
            max_waiting=enhancer.deployment.max_queued_requests,
            # Who waits longer is answered without a description.
            max_wait_s=enhancer.deadline_s,
        )

    def cost(self, message: Describe) -> int:
        # Bulk fills half a batch, which takes about half the time: so much less must a recommendation wait for it.
        return 2 if message.bulk else 1

    @property
    def loads_at_start(self) -> bool:
        # Where it may have no replica, one starts only because somebody wants a description.
        return self._target.load_at_start or self._base.deployment.min_replicas == 0

    def load_model(self, settings: EnhancerSettings) -> "Enhancer":
        # In the loading thread, as the Embedder's.
        from matinee.models.enhancer import Enhancer

        enhancer = Enhancer.load(
            settings,
            self._settings.models_dir,
            artifacts=self._settings.artifacts_uri,
            language=self._settings.language,
            count_failure=lambda reason: self._metrics.enhancer_server_failures(reason=reason),
        )
        if settings.engine == "local":
            enhancer.describe([_WARM_UP])
        return enhancer

    def labels(self, model: "Enhancer") -> tuple[str, str, str]:
        info = model.info()
        return model.name, str(info["precision"]), str(info["digest"])

    def configure_batcher(self, settings: EnhancerSettings) -> None:
        if settings.engine == "local":
            self.batcher.max_batch, self.batcher.max_in_flight = settings.batch_size, 1
        else:
            self._let_server_batch(self.slot.model)

    def _announce(self, model: "Enhancer") -> None:
        super()._announce(model)
        if self._batcher is not None:
            self._let_server_batch(model)

    def _let_server_batch(self, model: "Enhancer") -> None:
        """A description that is done waits for no other, and the server gets the next. Only once its model is the current one."""
        if model.calls_at_once > 1:
            self.batcher.max_batch, self.batcher.max_in_flight = 1, model.calls_at_once

    async def info(self) -> Json:
        info = await super().info()
        return info if self._slot is None else info | {"trouble": info["trouble"] or self.slot.model.trouble}

    def _answer(self, model: "Enhancer", batch: Sequence[QueuedMessage[Describe]]) -> list[Description | MatineeError]:
        self._metrics.model_batch(len(batch), part="enhancer")
        deadline = max(queued.deadline for queued in batch)
        with self._telemetry(batch) as handled:
            handled += (descriptions := model.describe([queued.message.item for queued in batch], deadline=deadline))
        for description in descriptions:
            self._metrics.generated_tokens(description.tokens)
            if description.violations:
                self._metrics.violations(len(description.violations))
        return [*descriptions]
