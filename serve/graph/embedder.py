"""The Embedder deployment: texts -> unit vectors with their fingerprint, batched across callers.

A shell around `matinee.models.embedder`."""

from collections.abc import Sequence
from typing import Any

from matinee.errors import DeadlineError, MatineeError
from matinee.models.embedder import Embedder
from matinee.settings.tree import EmbedderSettings, Settings
from serve.graph import messages
from serve.graph.microbatch import Coalescer, Timed, still_wanted
from serve.graph.model_slot import ModelSlot, announce, describe_update
from serve.telemetry.batches import Handling
from serve.telemetry.metrics import Metrics


class EmbedderReplica:
    """Serves `calls.Embed` units."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._models_dir, self._artifacts = settings.models_dir, settings.artifacts_uri
        self._base = settings.embedder
        self._named: dict[str, str] | None = None
        self._handling = Handling("embedder", settings.tracing, metrics)
        self.slot: ModelSlot[Embedder, EmbedderSettings] = ModelSlot("embedder", settings.embedder, self._load, self._announce, metrics)
        limit = settings.embedder.deployment.max_ongoing_requests
        self._batcher: Coalescer[list[Timed[messages.Embed]], list[Any]] = Coalescer(
            "embedder", self._send, max_batch=limit, max_in_flight=1, max_waiting=limit * 2
        )

    def _load(self, settings: EmbedderSettings) -> Embedder:
        embedder = Embedder.load(settings, self._models_dir, artifacts=self._artifacts, workload="queries")
        embedder.encode(["warm up"] * 8, kind="query")
        return embedder

    def _announce(self, embedder: Embedder) -> None:
        self._named = announce(
            self._metrics,
            self._named,
            {"part": "embedder", "model": embedder.model_id, "precision": embedder.precision, "fingerprint": embedder.fingerprint[:16]},
        )

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.slot.update(describe_update(self._base, user_config))

    async def call(self, batch: Sequence[Timed[messages.Embed]]) -> list[Any]:
        """One `Embedded` or `MatineeError` for each unit; batches of several gateways join while the model is busy."""
        if not batch:
            return []
        return await self._batcher(list(batch), max(timed.deadline for timed in batch))

    async def _send(self, batches: list[Timed[list[Timed[messages.Embed]]]]) -> list[Any]:
        units = [timed for batch in batches for timed in batch.unit]
        results = iter(await self.slot.run(lambda embedder: self._encode(embedder, units)))
        return [[next(results) for _ in batch.unit] for batch in batches]

    def _encode(self, embedder: Embedder, units: list[Timed[messages.Embed]]) -> list[Any]:
        before = embedder.tokens_read
        with self._handling(units) as results:
            results += self._encoded(embedder, units)
        self._metrics.encoded_tokens(embedder.tokens_read - before)
        return results

    def _encoded(self, embedder: Embedder, units: list[Timed[messages.Embed]]) -> list[Any]:
        results: list[Any] = [DeadlineError("embedder: the deadline had passed before the work began")] * len(units)
        wanted = [i for i, is_wanted in enumerate(still_wanted(units)) if is_wanted]
        for kind in ("query", "document"):
            rows = [i for i in wanted if units[i].unit.kind == kind]
            texts = [text for i in rows for text in units[i].unit.texts]
            if not texts:
                continue
            self._metrics.model_batch(len(texts), part="embedder")
            try:
                vectors = embedder.encode(texts, kind=kind)
            except MatineeError as error:
                for i in rows:
                    results[i] = error
                continue
            start = 0
            for i in rows:
                end = start + len(units[i].unit.texts)
                results[i] = messages.Embedded(embedder.fingerprint, vectors[start:end])
                start = end
        return results

    def close(self) -> None:
        self._handling.close()

    async def info(self) -> dict[str, Any]:
        return self.slot.model.info() | {"trouble": self.slot.trouble}
