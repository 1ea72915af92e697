"""The Enhancer deployment: items -> checked descriptions, batched across callers. A shell around `matinee.models.enhancer`."""

import time
from collections.abc import Sequence
from typing import Any

from matinee.errors import DeadlineError
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.tree import EnhancerSettings, Settings
from serve.graph import messages
from serve.graph.microbatch import Coalescer, Timed, gather_errors, still_wanted
from serve.graph.model_slot import ModelSlot, announce, describe_update
from serve.telemetry.batches import Handling
from serve.telemetry.metrics import Metrics

_WARM_UP = Item(kind="film", title="Warm up", year=2000, genres=("Drama",))


class EnhancerReplica:
    """Serves `calls.Describe` units."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._models_dir, self._artifacts = settings.models_dir, settings.artifacts_uri
        self._base = settings.enhancer
        self._named: dict[str, str] | None = None
        self._handling = Handling("enhancer", settings.tracing, metrics)
        self.slot: ModelSlot[Enhancer, EnhancerSettings] = ModelSlot("enhancer", settings.enhancer, self._load, self._announce, metrics)
        self._batcher: Coalescer[Timed[messages.Describe], Any] = Coalescer(
            "enhancer",
            self._send,
            max_batch=settings.enhancer.batch_size,
            max_in_flight=1,
            max_waiting=settings.enhancer.deployment.max_queued_requests,
            observe_batch=lambda n: metrics.model_batch(n, part="enhancer"),
        )

    def _load(self, settings: EnhancerSettings) -> Enhancer:
        enhancer = Enhancer.load(settings, self._models_dir, artifacts=self._artifacts)
        enhancer.describe([_WARM_UP])
        return enhancer

    def _announce(self, enhancer: Enhancer) -> None:
        info = enhancer.info()
        named = {"part": "enhancer", "model": enhancer.name, "precision": info["precision"], "fingerprint": str(info["digest"])[:16]}
        self._named = announce(self._metrics, self._named, named)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        settings = describe_update(self._base, user_config)
        self._batcher.max_batch = settings.batch_size
        self.slot.update(settings)

    async def call(self, batch: Sequence[Timed[messages.Describe]]) -> list[Any]:
        """One `Description` or `MatineeError` for each unit."""
        return await gather_errors([self._batcher(timed, timed.deadline) for timed in batch])

    async def _send(self, waiting: list[Timed[Timed[messages.Describe]]]) -> list[Any]:
        batch = [outer.unit for outer in waiting]
        with self._handling(batch) as results:
            results += await self._described(batch)
        return results

    async def _described(self, batch: list[Timed[messages.Describe]]) -> list[Any]:
        results: list[Any] = [DeadlineError("enhancer: the deadline had passed before the work began")] * len(batch)
        wanted = [i for i, is_wanted in enumerate(still_wanted(batch)) if is_wanted]
        items = [batch[i].unit.item for i in wanted]
        if not items:
            return results
        latest = max(batch[i].deadline for i in wanted)
        deadline = time.monotonic() + latest - time.time()
        descriptions = await self.slot.run(lambda enhancer: enhancer.describe(items, deadline=deadline))
        for i, description in zip(wanted, descriptions, strict=True):
            results[i] = description
            self._metrics.generated_tokens(description.tokens)
            if description.violations:
                self._metrics.violations(len(description.violations))
        return results

    def close(self) -> None:
        self._handling.close()

    async def info(self) -> dict[str, Any]:
        return self.slot.model.info() | {"trouble": self.slot.trouble}
