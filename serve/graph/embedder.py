"""The Embedder's replica: texts -> unit vectors with their fingerprint, batched across gateways.

A shell around `matinee.models.embedder`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matinee.errors import MatineeError
from matinee.settings.models import OF_THE_GPU, EmbedderSettings
from matinee.settings.tree import Settings
from serve.graph.messages import Embed, Embedded
from serve.graph.model_replica import ModelReplica
from serve.graph.wire import QueuedMessage
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from matinee.models.embedder import Embedder

MAX_WAITING = 8192
"""Messages of searches and recommendations."""

QUERIES_TIMES = 8
"""One encode of queries may have so many times `encode_tokens` tokens. Smaller parts would not answer any query sooner, and many texts of
similar length need less padding.
"""


class EmbedderReplica(ModelReplica["Embedder", EmbedderSettings, Embed, Embedded]):
    """Answers `messages.Embed`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        # A search waits for at most one encode of other work.
        super().__init__(
            "embedder",
            settings.embedder,
            settings,
            metrics,
            max_batch=settings.embedder.encode_tokens,
            max_waiting=MAX_WAITING,
            max_wait_s=settings.serving.max_wait_s,
        )

    def cost(self, message: Embed) -> int:
        return -(-message.tokens // QUERIES_TIMES) if message.kind == "query" and not message.bulk else message.tokens

    def waits_for_queries(self, message: Embed) -> bool:
        return message.kind == "document"

    def load_model(self, settings: EmbedderSettings) -> "Embedder":
        # Imported in the loading thread: PyTorch is most of a start, and the index need not wait for it.
        from matinee.models.embedder import Embedder

        embedder = Embedder.load(settings, self._settings.models_dir, artifacts=self._settings.artifacts_uri, workload="queries")
        embedder.encode(["warm up"] * 8, kind="query")
        return embedder

    def labels(self, model: "Embedder") -> tuple[str, str, str]:
        return model.model_id, model.precision, model.fingerprint

    def _answer(self, model: "Embedder", batch: Sequence[QueuedMessage[Embed]]) -> list[Embedded | MatineeError]:
        tokens_before = model.tokens_read
        results: dict[int, Embedded | MatineeError] = {}
        with self._telemetry(batch) as handled:
            for kind in ("query", "document"):
                rows = [i for i, queued in enumerate(batch) if queued.message.kind == kind]
                texts = [text for i in rows for text in batch[i].message.texts]
                if not rows:
                    continue
                self._metrics.model_batch(len(texts), part="embedder")
                try:
                    vectors = model.encode(texts, kind=kind)
                except MatineeError as error:
                    results |= dict.fromkeys(rows, error)
                    continue
                start = 0
                for i in rows:
                    end = start + len(batch[i].message.texts)
                    results[i] = Embedded(model.fingerprint, vectors[start:end])
                    start = end
            handled += (answers := [results[i] for i in range(len(batch))])
        self._metrics.encoded_tokens(model.tokens_read - tokens_before)
        return answers


class CpuEmbedderReplica(EmbedderReplica):
    """The same model on a CPU, for the time that no replica on a GPU runs."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings.model_copy(update={"embedder": settings.embedder.on_cpu}), metrics)

    def update(self, user_config: Mapping[str, object]) -> None:
        """Both deployments get the same update, of which this one takes the model."""
        super().update({name: value for name, value in user_config.items() if name not in OF_THE_GPU})
