"""The parts of the graph in one process: the same replicas as the deployments', called as functions. Does not import Ray.

The index opens first, so items are compared at once. The embedder loads behind that. The enhancer loads when it is first needed, or behind
the embedder where `enhancer.load_at_start` says so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from matinee.errors import MatineeError
from matinee.models.types import Description
from matinee.settings.tree import Settings
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.loaded_part import LoadedPart
from serve.graph.messages import Describe, Embed, Embedded
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from serve.graph.embedder import EmbedderReplica
    from serve.graph.enhancer import EnhancerReplica


@asynccontextmanager
async def graph_in_process(settings: Settings, metrics_of: Callable[[str], Metrics]) -> AsyncIterator["InProcessGraph"]:
    """The graph of `settings`, with its index open; closed at the end. `metrics_of` gives a part its metrics."""
    metrics = metrics_of("retriever")
    retriever = RetrieverReplica(settings, metrics)
    await retriever.start()
    embedder: LoadedPart[Embed, Embedded] = LoadedPart(
        "embedder", settings.embedder.model, lambda: _embedder(settings, metrics_of("embedder"))
    )
    enhancer: LoadedPart[Describe, Description] | None = None
    if settings.enhancer.enabled:
        enhancer = LoadedPart("enhancer", settings.enhancer.model, lambda: _enhancer(settings, metrics_of("enhancer")))
    graph = InProcessGraph(settings, metrics_of("gateway"), retriever, embedder, enhancer)
    try:
        yield graph
    finally:
        await graph.close()


def _embedder(settings: Settings, metrics: Metrics) -> "EmbedderReplica":
    # Imported in the loading thread: PyTorch is most of a start, and the index need not wait for it.
    from serve.graph.embedder import EmbedderReplica

    return EmbedderReplica(settings, metrics)


def _enhancer(settings: Settings, metrics: Metrics) -> "EnhancerReplica":
    from serve.graph.enhancer import EnhancerReplica

    return EnhancerReplica(settings, metrics)


class InProcessGraph:
    """The replicas of one process, and the `Graph` that a gateway sees."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        retriever: RetrieverReplica,
        embedder: "LoadedPart[Embed, Embedded]",
        enhancer: "LoadedPart[Describe, Description] | None",
    ) -> None:
        self._retriever = retriever
        self._models: list[LoadedPart[Embed, Embedded] | LoadedPart[Describe, Description]] = [
            part for part in (embedder, enhancer) if part is not None
        ]
        self._at_start = self._models if settings.enhancer.load_at_start else self._models[:1]
        retrieve = RetrieverClient(send_to(retriever), settings, metrics)
        self.graph = Graph(embedder, retrieve, enhancer, {part.name: part.info for part in self._models}, "process")

    async def load(self) -> None:
        """Load the models of a start, one after the other: text searches need the first.

        Raises `MatineeError` where one can't be loaded.
        """
        for part in self._at_start:
            try:
                # Whoever stops waiting does not stop the load.
                await asyncio.shield(part.load())
            except MatineeError:
                raise
            except Exception as error:
                raise MatineeError(f"the {part.name} did not load: {error}") from error

    def check_health(self) -> None:
        """Raises `RuntimeError` where a part can't go on, as Serve's health check does before it replaces a replica."""
        self._retriever.check_health()
        for part in self._models:
            part.check_health()

    async def close(self) -> None:
        for part in self._models:
            await part.close()
        await self._retriever.close()
