"""Does a function take linear time? Measured in CPU time of this thread, so a busy machine changes nothing; growth is judged, not speed."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LENGTH = 20_000
# At this length, what is below the floor can't be quadratic, and what is above the limit is not waited for.
_FLOOR_S, _LIMIT_S = 0.03, 20.0
# Four times the text takes four times as long where time is linear, 16 times where it is quadratic.
_SHARE, _GROWTH, _TRIES = 4, 9, 4
# Below this, a short run that something held up for half its time would still have shown a quadratic one.
_SURELY = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """Texts of any length: the units, each repeated over its part of the text, between a prefix and a tail."""

    units: tuple[str, ...]
    prefix: str = ""
    tail: str = ""

    def text(self, length: int) -> str:
        each = length // len(self.units)
        return self.prefix + "".join(unit * (each // len(unit)) for unit in self.units) + self.tail


class _TooLongError(Exception):
    """Not finished within the limit."""


@contextmanager
def _limit() -> Iterator[None]:
    """Stops what runs at the limit of CPU time: `re` lets signals through while it matches, though not other threads."""

    def stop(*_: Any) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _cpu_s(run: Callable[[str], object], text: str) -> float:
    start = time.thread_time()
    run(text)
    return time.thread_time() - start


def is_linear(run: Callable[[str], object], shape: Shape, length: int = LENGTH) -> bool:
    """Whether the time of `run` grows no faster than the text. A caught error of `run` is its own business."""
    long, short = shape.text(length), shape.text(length // _SHARE)
    try:
        with _limit():
            # What is quadratic and below this share of the floor would be below the floor at full length.
            base = _cpu_s(run, short)
            if base < _FLOOR_S / _SHARE**2:
                return True
            for _ in range(_TRIES):
                taken = _cpu_s(run, long)
                if taken < max(_FLOOR_S, _SURELY * base):
                    return True
                base = min(base, _cpu_s(run, short))
                if taken < _GROWTH * base:
                    return True
    except _TooLongError:
        pass
    return False
