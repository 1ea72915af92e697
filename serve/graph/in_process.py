"""The parts of the graph in one process: the same replicas as the deployments', called as functions. Does not import Ray.

The index opens first, so items are compared at once. The embedder loads behind that. The enhancer loads when it is first needed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from matinee.errors import MatineeError
from matinee.models.types import Description
from matinee.settings.tree import Settings
from serve.errors import UnavailableError
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.hops import Hop, enqueue, to_hop
from serve.graph.messages import Describe, Embed, Embedded, Json
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from serve.graph.embedder import EmbedderReplica
    from serve.graph.enhancer import EnhancerReplica

RETRY_S = 30.0
"""How long after a failed load the next request tries again."""

log = logging.getLogger(__name__)

Sent = TypeVar("Sent")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Replica(Protocol[Sent, Result_co]):
    """A model's replica (`serve.graph.model_replica.ModelReplica`), whatever its model and its settings."""

    def reconfigure(self, user_config: Mapping[str, object]) -> None: ...
    async def call(self, batch: Sequence[Hop[Sent]]) -> Sequence[Result_co | MatineeError]: ...
    async def info(self) -> Json: ...
    def check_health(self) -> None: ...
    def close(self) -> None: ...


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
        self.embedder = embedder
        retrieve = RetrieverClient(send_to(retriever), settings, metrics)
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

    def __init__(self, name: str, model: str, make: Callable[[], "Replica[Sent, Result]"]) -> None:
        self.name = name
        self._model = model
        self._make = make
        self._replica: Replica[Sent, Result] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._failed_at = float("-inf")

    def load(self) -> "asyncio.Task[None]":
        """Load the model, once; the task raises what the load raised. After a failure, `RETRY_S` must pass before the next try."""
        again = self._trouble is not None and time.monotonic() - self._failed_at > RETRY_S
        if self._loading is None or (self._loading.done() and again):
            self._loading = asyncio.create_task(self._load(), name=f"load the {self.name}")
        return self._loading

    async def _load(self) -> None:
        try:
            self._replica = await asyncio.to_thread(self._loaded)
        except Exception as error:
            self._trouble, self._failed_at = str(error), time.monotonic()
            log.error("%s: the model did not load: %s", self.name, error, exc_info=not isinstance(error, MatineeError))
            raise
        self._trouble = None

    def _loaded(self) -> "Replica[Sent, Result]":
        replica = self._make()
        try:
            replica.reconfigure({})
        except Exception:
            replica.close()
            raise
        return replica

    def check_health(self) -> None:
        """Raises `RuntimeError` where the model hangs."""
        if self._replica is not None:
            self._replica.check_health()

    async def __call__(self, message: Sent, deadline: float) -> Result:
        """Raises `UnavailableError` while the model is not there."""
        replica = self._replica or await self._wait_loaded(deadline)
        [result] = await replica.call([to_hop(enqueue(message, deadline))])
        if isinstance(result, MatineeError):
            raise result
        return result

    async def _wait_loaded(self, deadline: float) -> "Replica[Sent, Result]":
        loading = self.load()
        await asyncio.wait({loading}, timeout=max(0.0, deadline - time.monotonic()))
        if not loading.done():
            raise UnavailableError(f"{self.name}: its model still loads; ask again in a moment")
        if self._replica is None:
            raise UnavailableError(f"{self.name}: its model did not load ({self._trouble})")
        return self._replica

    async def info(self) -> Json:
        if self._replica is not None:
            return await self._replica.info()
        return {"model": self._model, "loaded": False, "trouble": self._trouble}

    async def close(self) -> None:
        if self._loading is not None:
            # A load can't be interrupted, and its thread would keep the process.
            with suppress(Exception):
                await self._loading
        if self._replica is not None:
            self._replica.close()
