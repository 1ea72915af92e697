"""How far the clocks of the parts' machines are from a gateway's: asked now and then, exported as a metric.

No deadline depends on it, because what travels is the time that is left. Revisions, expiring tokens and the times in logs and traces do.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from matinee.errors import MatineeError
from serve.graph.tasks import BackgroundWork
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

ASK_S = 15.0

Clock = Callable[[], Awaitable[float]]
"""Seconds since 1970 as a replica of a part has it."""


class ReplicaClock:
    """The base of all replicas: gateways ask for the time of their machine."""

    async def clock(self) -> float:
        """Seconds since 1970, as this machine has it."""
        return time.time()


class ClockWatch(BackgroundWork):
    """Asks the clock of a replica of each part every `ASK_S` seconds."""

    def __init__(self, clocks: Mapping[str, Clock], metrics: Metrics) -> None:
        self._clocks = clocks
        self._metrics = metrics

    def start(self) -> None:
        """Where all parts are in this process, there is nothing to ask."""
        if self._clocks:
            super().start()

    async def _run(self) -> None:
        while True:
            await asyncio.gather(*(self._ask(part, clock) for part, clock in self._clocks.items()))
            await asyncio.sleep(ASK_S)

    async def _ask(self, part: str, clock: Clock) -> None:
        sent = time.time()
        try:
            async with asyncio.timeout(ASK_S):
                there = await clock()
        except (MatineeError, TimeoutError) as error:
            log.info("the clock of the %s is not known: %s", part, error)
        else:
            self._metrics.clock_skew_s(skew_s(sent, there, time.time()), part=part)


def skew_s(sent: float, there: float, got: float) -> float:
    """Seconds that a clock is ahead, at least: it said `there` between `sent` and `got` of ours. Negative: behind; 0: it may be right."""
    if there > got:
        return there - got
    return min(0.0, there - sent)
