"""The parts of the graph in one process: the same replicas as the deployments', called as functions. Does not import Ray.

The index opens first, so items are compared at once. The embedder loads behind that. The enhancer loads when it is first needed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from matinee.errors import MatineeError
from matinee.settings.tree import Settings
from serve.errors import UnavailableError
from serve.graph.clients import RetrieverClient
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.hops import hop, queued
from serve.graph.model_replica import ModelMessage, ModelReplica
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics

RETRY_S = 30.0
"""How long after a failed load the next request tries again."""

log = logging.getLogger(__name__)

Sent = TypeVar("Sent", bound=ModelMessage)
Result = TypeVar("Result")


@asynccontextmanager
async def graph_in_process(settings: Settings, metrics_of: Callable[[str], Metrics]) -> AsyncIterator["InProcessGraph"]:
    """The graph of `settings`, with its index open; closed at the end. `metrics_of` gives a part its metrics."""
    metrics = metrics_of("retriever")
    retriever = RetrieverReplica(settings, metrics)
    await retriever.start()
    embedder = LoadedPart("embedder", EmbedderReplica(settings, metrics_of("embedder")), settings.embedder.model)
    enhancer = None
    if settings.enhancer.enabled:
        enhancer = LoadedPart("enhancer", EnhancerReplica(settings, metrics_of("enhancer")), settings.enhancer.model)
    graph = InProcessGraph(settings, metrics_of("gateway"), retriever, embedder, enhancer)
    try:
        yield graph
    finally:
        await graph.close()


class InProcessGraph:
    """The replicas of one process, and the `Graph` that a gateway sees."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        retriever: RetrieverReplica,
        embedder: "LoadedPart[Any, Any]",
        enhancer: "LoadedPart[Any, Any] | None",
    ) -> None:
        self._retriever = retriever
        self._models = [part for part in (embedder, enhancer) if part is not None]
        self.embedder = embedder
        retrieve = RetrieverClient(retriever, settings, metrics)
        self.graph = Graph(embedder, retrieve, enhancer, {part.name: part.info for part in self._models}, "process")

    def check_health(self) -> None:
        """Raises `RuntimeError` where a part can't go on, as Serve's health check does before it replaces a replica."""
        self._retriever.check_health()
        for part in self._models:
            part.check_health()

    async def close(self) -> None:
        for part in self._models:
            await part.close()
        await self._retriever.close()


class LoadedPart(Generic[Sent, Result]):
    """A model of this process. `load`, or the first message, loads it in a thread; messages wait for that until their deadline."""

    def __init__(self, name: str, replica: ModelReplica[Any, Any, Sent, Result], model: str) -> None:
        self.name = name
        self._replica = replica
        self._model = model
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._failed_at = float("-inf")

    @property
    def loaded(self) -> bool:
        return self._loading is not None and self._loading.done() and self._trouble is None

    def load(self) -> "asyncio.Task[None]":
        """Load the model, once; the task raises what the load raised. After a failure, `RETRY_S` must pass before the next try."""
        again = self._trouble is not None and time.monotonic() - self._failed_at > RETRY_S
        if self._loading is None or (self._loading.done() and again):
            self._loading = asyncio.create_task(self._load(), name=f"load the {self.name}")
        return self._loading

    async def _load(self) -> None:
        try:
            await asyncio.to_thread(self._replica.reconfigure, {})
        except Exception as error:
            self._trouble, self._failed_at = str(error), time.monotonic()
            log.error("%s: the model did not load: %s", self.name, error, exc_info=not isinstance(error, MatineeError))
            raise
        self._trouble = None

    def check_health(self) -> None:
        """Raises `RuntimeError` where the model hangs."""
        self._replica.check_health()

    async def __call__(self, message: Sent, deadline: float) -> Result:
        """Raises `UnavailableError` while the model is not there."""
        if not self.loaded:
            await self._wait_loaded(deadline)
        [result] = await self._replica.call([hop(queued(message, deadline))])
        if isinstance(result, MatineeError):
            raise result
        return result

    async def _wait_loaded(self, deadline: float) -> None:
        loading = self.load()
        await asyncio.wait({loading}, timeout=max(0.0, deadline - time.monotonic()))
        if not loading.done():
            raise UnavailableError(f"{self.name}: its model still loads; ask again in a moment")
        if self._trouble is not None:
            raise UnavailableError(f"{self.name}: its model did not load ({self._trouble})")

    async def info(self) -> dict[str, Any]:
        if self.loaded:
            return await self._replica.info()
        return {"model": self._model, "loaded": False, "trouble": self._trouble}

    async def close(self) -> None:
        if self._loading is not None:
            # A load can't be interrupted, and its thread would keep the process.
            with suppress(Exception):
                await self._loading
        self._replica.close()
