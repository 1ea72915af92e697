"""A limit of what is under way at once, shared by catalogues: one catalogue's load never takes all of them.

Knows neither requests nor queues (`serve.graph.microbatch` shares those).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Sharing:
    """Whether a server has several catalogues, as far as a gateway knows."""

    several: bool = False


class ConcurrencyLimit:
    """At most `limit` at once. A quarter is kept for catalogues that have less than their share, as soon as there are several catalogues.

    The share is that of each catalogue with requests under way, and of one more: whoever comes next finds a place.
    """

    def __init__(self, limit: int, sharing: Sharing) -> None:
        self.limit = limit
        self.ongoing = 0
        self._sharing = sharing
        self._by_catalogue: Counter[str] = Counter()

    def refusal(self, catalogue: str) -> str | None:
        """Why a catalogue gets no further place now; None where it gets one."""
        if self.ongoing >= self.limit:
            return f"{self.limit} requests are under way here; ask again in a moment"
        if not self._sharing.several:
            return None
        own = self._by_catalogue.get(catalogue, 0)
        share = max(1, self.limit // (len(self._by_catalogue) + (own == 0) + 1))
        free = self.limit - self.ongoing
        if own >= share and free <= self.limit // 4:
            return f"this catalogue has {own} requests under way here, and the {free} free places are for others; ask again in a moment"
        return None

    @contextmanager
    def hold(self, catalogue: str) -> Iterator[None]:
        self.ongoing += 1
        self._by_catalogue[catalogue] += 1
        try:
            yield
        finally:
            self.ongoing -= 1
            self._by_catalogue[catalogue] -= 1
            if not self._by_catalogue[catalogue]:
                del self._by_catalogue[catalogue]
