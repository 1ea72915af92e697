"""What one request brings along on its way through the graph: its deadline, the time of its stages, and what it had to do without."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field


def no_span(name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class RequestContext:
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
