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

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with self.span(name):
                yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - start) * 1000
