"""A Retriever over a home of its own, as tests ask it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import (
    MatineeError,
)
from matinee.recommend.queries import Example, ExampleQuery
from serve.graph import messages
from serve.graph.gateway import Gateway
from serve.graph.health import Health
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S

LATER = 86_400.0


class Bench:
    """A Retriever over its own home."""

    def __init__(self, graph: Any, home: Path) -> None:
        self.graph = graph
        self.settings = graph.local_settings(home)
        self.sink = MemorySink()
        self.retriever: RetrieverReplica | None = None

    async def build(self, films: int) -> None:
        await self.graph.build_index(self.settings, self.graph.demo_films()[:films])

    async def start(self, **more: Any) -> RetrieverReplica:
        self.retriever = RetrieverReplica(self.settings, Metrics(self.sink), **({"watch_s": 0.01} | more))
        await self.retriever.start()
        return self.retriever

    async def ask(self, *units: Any) -> list[Any]:
        assert self.retriever is not None
        return await self.retriever.call([WireMessage(unit, LATER) for unit in units])

    async def version(self) -> str | None:
        [status] = await self.ask(messages.ReadStatus())
        return status.manifest and str(status.manifest.version)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(HANG_S):
            while not await condition():  # noqa: ASYNC110  the watcher tells nobody
                await asyncio.sleep(0.01)


def like(title: str, **more: Any) -> messages.Rank:
    return messages.Rank(ExampleQuery((Example(title=title),), **more))


async def absence(bench: Bench) -> tuple[type[Exception], list[type[Exception]]]:
    """What a gateway raises and why it is not ready, of what the Retriever reports while it has no version."""

    async def part(message: Any, deadline: float) -> Any:
        [answer] = await bench.ask(message)
        return answer

    gateway = Gateway(bench.settings, Graph(part, part, None, {}), Metrics(MemorySink()))
    with pytest.raises(MatineeError) as raised:
        await gateway.recipe(gateway.new_context())
    return raised.type, [type(error) for error in await Health(gateway).unready(gateway.new_context())]
