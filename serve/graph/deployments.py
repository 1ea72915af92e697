"""The Ray Serve deployments of the graph's parts: each gives a replica a process, a queue and copies. The gateway's is in `serve.app`.

The deployments' names are those that charts, dashboards and alerts use.
"""

from ray import serve as ray_serve

from matinee.settings.load import with_key
from matinee.settings.tree import Settings
from serve.graph.embedder import CpuEmbedderReplica, EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.start import start_telemetry


@ray_serve.deployment(name="Embedder")
class EmbedderDeployment(EmbedderReplica):
    """Texts -> vectors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, start_telemetry(settings.serving, "embedder"))


@ray_serve.deployment(name="CpuEmbedder")
class CpuEmbedderDeployment(CpuEmbedderReplica):
    """Texts -> vectors, while no replica of the Embedder runs."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, start_telemetry(settings.serving, "embedder"))


@ray_serve.deployment(name="Enhancer")
class EnhancerDeployment(EnhancerReplica):
    """Items -> descriptions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(with_key(settings, "enhancer"), start_telemetry(settings.serving, "enhancer"))


@ray_serve.deployment(name="Retriever")
class RetrieverDeployment(RetrieverReplica):
    """Vectors, words and examples -> ranked items."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        super().__init__(with_key(settings, "index"), start_telemetry(settings.serving, "retriever"))
        await self.start()

    async def __del__(self) -> None:
        await self.close()
