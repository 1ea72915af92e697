"""What a gateway refuses before any work: what one client takes too much of, and routes whose queue is too long. Each gateway counts by
itself. Does not know HTTP.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cachetools import LRUCache

from matinee.errors import OverloadedError
from matinee.settings.serving import LimitSettings
from serve.api.auth import Caller
from serve.errors import RequestError

_BURST_S = 10.0
_CLIENTS = 10_000


class ClientLimits:
    """The limits of each key and of each client address. `places`: the requests that the gateway takes at once."""

    def __init__(self, settings: LimitSettings, places: int) -> None:
        self._share = max(1, int(places * settings.share)) if settings.share < 1 else None
        self._ongoing: Counter[tuple[str, str]] = Counter()
        rates = {"key": settings.key_rate, "address": settings.address_rate}
        self._rates = {kind: RateLimit(rate, rate * _BURST_S) for kind, rate in rates.items() if rate}

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """Holds a place for `caller`. Raises a 429 where it holds its share already, or asks too often."""
        names = {"key": caller.key, "address": caller.address}
        clients = [(kind, name) for kind, name in names.items() if name is not None]
        for kind, name in clients:
            if self._share is not None and self._ongoing[kind, name] >= self._share:
                raise RequestError(429, f"this {kind} has {self._share} requests under way here (serving.limits.share); wait for some")
        for kind, name in clients:
            if kind in self._rates and not self._rates[kind].take(name):
                rate = f"{self._rates[kind].rate:g} a second (serving.limits.{kind}_rate)"
                raise RequestError(429, f"this {kind} sends requests faster than {rate}; send them slower")
        self._ongoing.update(clients)
        try:
            yield
        finally:
            for client in clients:
                self._ongoing[client] -= 1
                if not self._ongoing[client]:
                    del self._ongoing[client]


class RateLimit:
    """A token bucket for each client: `rate` a second in the long run, about `burst` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._burst = max(1.0, burst)
        self._clock = clock
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(_CLIENTS)

    def take(self, client: str, amount: float = 1) -> bool:
        """Take `amount`, if anything is left. What is above the rest is owed: later takes wait for it."""
        now = self._clock()
        level, at = self._levels.get(client, (self._burst, now))
        level = min(self._burst, level + (now - at) * self.rate)
        taken = level >= 1
        self._levels[client] = (level - amount if taken else level, now)
        return taken


class BusyRoutes:
    """Routes that a queue behind them has just refused. Until an eighth of that queue has left, further requests are refused here.

    A refusal here costs a small part of one by the queue. Under an overload that decides how many requests are answered. No more than an
    eighth: the queue must never run empty while requests are refused. Its pace tells when that is, or the requests that are under way in
    this gateway, which wait in it: once an eighth of them has ended, answered or given up, the route is open again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._closed: dict[str, tuple[float, float, float]] = {}

    def record(self, route: str, wait_s: float, ongoing: int) -> None:
        """Note that the queue behind `route` needs `wait_s` seconds for its requests. `ongoing` other requests are under way."""
        now = self._clock()
        self._closed[route] = now + wait_s / 8, now + wait_s, ongoing * 7 / 8

    def check(self, route: str, ongoing: int) -> None:
        """Raises `OverloadedError` while the queue behind `route` is nearly as long as when it refused. `ongoing` are under way now."""
        closed_until, empty_at, still = self._closed.get(route, (0.0, 0.0, 0.0))
        if (now := self._clock()) < closed_until and ongoing >= still:
            raise OverloadedError(f"{route}: too many requests wait already; ask again in a moment", empty_at - now)
