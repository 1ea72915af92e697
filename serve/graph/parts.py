"""The parts of the graph as a gateway sees them, each a typed coroutine function, and the trace of one request through them.

Does not know how the parts are reached: over Ray handles (`handles`), or in the same process (`in_process`).
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from matinee.models.types import Description
from serve.graph.clock_skew import Clock
from serve.graph.messages import Describe, Embed, Embedded, Json, RetrieverMessage

Result = TypeVar("Result")


class EmbedderPart(Protocol):
    """Texts and a deadline -> vectors."""

    def __call__(self, message: Embed, deadline: float, /) -> Coroutine[object, None, Embedded]: ...


class EnhancerPart(Protocol):
    """An item and a deadline -> its description."""

    def __call__(self, message: Describe, deadline: float, /) -> Coroutine[object, None, Description]: ...


class RetrieverPart(Protocol):
    """A message and a deadline -> the message's result."""

    async def __call__(self, message: RetrieverMessage[Result], deadline: float, /) -> Result: ...


Info = Callable[[], Awaitable[Json]]
"""What a part reports of itself for `/v1/info`."""


@dataclass(frozen=True)
class Graph:
    """The parts that a gateway talks to. `enhancer` is None where it is switched off, `placement` is where the parts run."""

    embedder: EmbedderPart
    retriever: RetrieverPart
    enhancer: EnhancerPart | None
    infos: dict[str, Info]
    placement: Literal["process", "ray"] = "ray"
    clocks: dict[str, Clock] = field(default_factory=dict)


def no_span(name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Trace:
    """One request's deadline (a `time.monotonic()` moment), the time of its stages in ms, and what it had to do without.

    `bulk`: nobody waits for this one answer, so searches go first. `span` records a stage elsewhere too.
    """

    deadline: float
    span: Callable[[str], AbstractContextManager[None]] = no_span
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    bulk: bool = False
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
