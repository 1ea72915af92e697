"""The parts of the graph in one process: the same replicas as the deployments', called as functions. Does not import Ray.

The index opens first, so items are compared at once. The embedder loads behind that. The enhancer loads when it is first needed, or behind
the embedder where `enhancer.load_at_start` says so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from matinee.errors import MatineeError
from matinee.index.protocols import closing
from matinee.settings.tree import Settings
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.messages import RetrieverMessage
from serve.graph.microbatch import ResultCallback
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import QueuedMessage
from serve.telemetry.metrics import Metrics


@asynccontextmanager
async def graph_in_process(settings: Settings, metrics_of: Callable[[str], Metrics]) -> AsyncIterator["InProcessGraph"]:
    """The graph of `settings`, with its index open; closed at the end. `metrics_of` gives a part its metrics."""
    retriever = RetrieverReplica(settings, metrics_of("retriever"))
    await retriever.start()
    enhancer = EnhancerReplica(settings, metrics_of("enhancer")) if settings.enhancer.enabled else None
    embedder = EmbedderReplica(settings, metrics_of("embedder"))
    async with closing(InProcessGraph(settings, metrics_of("gateway"), retriever, embedder, enhancer)) as graph:
        yield graph


class InProcessGraph:
    """The replicas of one process, and the `Graph` that a gateway sees."""

    def __init__(
        self, settings: Settings, metrics: Metrics, retriever: RetrieverReplica, embedder: EmbedderReplica, enhancer: EnhancerReplica | None
    ) -> None:
        self._retriever = retriever
        self._models: list[EmbedderReplica | EnhancerReplica] = [embedder, *([] if enhancer is None else [enhancer])]
        retrieve = RetrieverClient(self._send, settings, metrics, here=True)
        self.graph = Graph(embedder, retrieve, enhancer, {model.part: model.info for model in self._models}, "process")

    async def _send(self, batch: list[QueuedMessage[RetrieverMessage[object]]], on_result: ResultCallback[object]) -> Sequence[object]:
        if len(batch) == 1:
            return await self._retriever.answer(batch)
        return await send_to(self._retriever)(batch, on_result)

    async def load(self) -> None:
        """Load the models of a start, one after the other: text searches need the first.

        Raises `MatineeError` where one can't be loaded.
        """
        for model in (model for model in self._models if model.loads_at_start):
            try:
                # Whoever stops waiting does not stop the load.
                await asyncio.shield(model.load())
            except MatineeError:
                raise
            except Exception as error:
                raise MatineeError(f"the {model.part} did not load: {error}") from error

    def check_health(self) -> None:
        """Raises `RuntimeError` where a part can't go on, as Serve's health check does before it replaces a replica."""
        self._retriever.check_health()
        for model in self._models:
            model.check_health()

    async def close(self) -> None:
        for model in self._models:
            await model.close()
        await self._retriever.close()
