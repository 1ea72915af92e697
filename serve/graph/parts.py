"""What a gateway stands on: one coroutine function for each part of the graph, and the trace that a request leaves on its way through them.

Does not know how the parts are reached: over Ray handles (`deployments`), or in the same process (tests).
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol


class Part(Protocol):
    """One part of the graph: a unit of work and its deadline -> its result."""

    async def __call__(self, unit: Any, deadline: float) -> Any: ...


@dataclass(frozen=True)
class Graph:
    """The parts that a gateway talks to; `enhancer` is None where it is switched off."""

    embedder: Part
    retriever: Part
    enhancer: Part | None
    infos: dict[str, Callable[[], Awaitable[dict[str, Any]]]]


def no_span(name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Trace:
    """One request's deadline, the time of its stages in ms, and what it had to do without. `span` records a stage elsewhere too."""

    deadline: float
    span: Callable[[str], AbstractContextManager[None]] = no_span
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    _under_way: dict[str, tuple[int, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What several do at the same time counts once."""
        others, start = self._under_way.get(name, (0, time.perf_counter()))
        self._under_way[name] = (others + 1, start)
        try:
            with self.span(name):
                yield
        finally:
            others, start = self._under_way.pop(name)
            if others > 1:
                self._under_way[name] = (others - 1, start)
            else:
                self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - start) * 1000
