"""The Ray Serve deployments of the graph's parts: each gives a replica a process, a queue and copies. The gateway's is in `serve.app`.

The deployments' names are those that charts, dashboards and alerts use.
"""

from collections.abc import Sequence

from ray import serve as ray_serve

from matinee.settings.tree import Settings
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.messages import RetrieverMessage
from serve.graph.microbatch import Queued
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.start import start_telemetry


@ray_serve.deployment(name="Embedder")
class EmbedderDeployment(EmbedderReplica):
    """Texts -> vectors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, start_telemetry(settings.serving, "embedder"))


@ray_serve.deployment(name="Enhancer")
class EnhancerDeployment(EnhancerReplica):
    """Items -> descriptions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, start_telemetry(settings.serving, "enhancer"))


@ray_serve.deployment(name="Retriever")
class RetrieverDeployment:
    """Vectors, words and examples -> ranked items."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        self._replica = RetrieverReplica(settings, start_telemetry(settings.serving, "retriever"))
        await self._replica.start()

    def check_health(self) -> None:
        self._replica.check_health()

    async def call(self, batch: Sequence[Queued[RetrieverMessage[object]]]) -> list[object]:
        return await self._replica.call(batch)

    async def __del__(self) -> None:
        await self._replica.close()
