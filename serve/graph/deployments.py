"""The Ray Serve deployments of the graph's parts: each gives a replica a process, a queue and copies. The gateway's is in `serve.app`.

The deployments' names are those that charts, dashboards and alerts use.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence

from ray import serve as ray_serve

from matinee.errors import MatineeError
from matinee.models.types import Description
from matinee.settings.load import with_key
from matinee.settings.tree import Settings
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.loaded_part import LoadedPart, Replica
from serve.graph.messages import Describe, Json, RetrieverMessage
from serve.graph.model_slot import apply_update
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage, from_wire, to_wire
from serve.telemetry.start import start_telemetry


@ray_serve.deployment(name="Embedder")
class EmbedderDeployment(EmbedderReplica):
    """Texts -> vectors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, start_telemetry(settings.serving, "embedder"))


@ray_serve.deployment(name="Enhancer")
class EnhancerDeployment:
    """Items -> descriptions. The model loads with the replica where `load_at_start` says so, else with the first item."""

    def __init__(self, settings: Settings) -> None:
        settings = with_key(settings, "enhancer")
        metrics = start_telemetry(settings.serving, "enhancer")
        self._settings = settings.enhancer
        self._part: LoadedPart[Describe, Description] = LoadedPart(
            "enhancer", settings.enhancer.model, lambda: EnhancerReplica(settings, metrics)
        )

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self._part.reconfigure(user_config)
        if apply_update(self._settings, user_config).load_at_start:
            await self._part.load()

    def check_health(self) -> None:
        self._part.check_health()

    async def call(self, batch: Sequence[WireMessage[Describe]]) -> Sequence[Description | MatineeError]:
        replica, batch = await self._ready(batch)
        return await replica.call(batch)

    async def stream(self, batch: Sequence[WireMessage[Describe]]) -> AsyncIterator[Sequence[tuple[int, Description | MatineeError]]]:
        replica, batch = await self._ready(batch)
        async for pairs in replica.stream(batch):
            yield pairs

    async def _ready(
        self, batch: Sequence[WireMessage[Describe]]
    ) -> tuple[Replica[Describe, Description], Sequence[WireMessage[Describe]]]:
        """The loaded replica, and the batch with the time that is left after the load."""
        waiting = [from_wire(hop) for hop in batch]
        replica = await self._part.ready(max(queued.deadline for queued in waiting))
        return replica, [to_wire(queued) for queued in waiting]

    async def info(self) -> Json:
        return await self._part.info()

    async def clock(self) -> float:
        """Seconds since 1970, as this machine has it."""
        return time.time()

    def __del__(self) -> None:
        # Serve ends a replica so. What is loaded goes with its part, and closes its telemetry.
        self.__dict__.pop("_part", None)


@ray_serve.deployment(name="Retriever")
class RetrieverDeployment:
    """Vectors, words and examples -> ranked items."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        self._replica = RetrieverReplica(with_key(settings, "index"), start_telemetry(settings.serving, "retriever"))
        await self._replica.start()

    def check_health(self) -> None:
        self._replica.check_health()

    async def call(self, batch: Sequence[WireMessage[RetrieverMessage[object]]]) -> list[object]:
        return await self._replica.call(batch)

    async def stream(self, batch: Sequence[WireMessage[RetrieverMessage[object]]]) -> AsyncIterator[list[tuple[int, object]]]:
        async for pairs in self._replica.stream(batch):
            yield pairs

    async def clock(self) -> float:
        """Seconds since 1970, as this machine has it."""
        return time.time()

    async def __del__(self) -> None:
        await self._replica.close()
