"""The parts of the graph as a gateway sees them, each a typed coroutine function.

Does not know how the parts are reached: over Ray handles (`handles`), or in the same process (`in_process`).
"""

from collections.abc import Awaitable, Callable, Coroutine
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
