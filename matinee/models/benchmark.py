"""Which of several encoders is the fastest on this machine: measured in turns, within a budget of time. Does not know what they run."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

BUDGET_S = 2.0
"""Of all candidates together."""

TURNS = 5

T = TypeVar("T")


def pick_fastest(
    candidates: Sequence[T], warm_up: Callable[[T], object], run: Callable[[T], object], *, clock: Callable[[], float] = time.perf_counter
) -> T:
    """The candidate with the quickest `run`, of up to five each: the machine's other work only ever adds.

    Each warms up and runs once, and then again while the budget has time for it. In turns: if the machine slows down, all of them do.
    """
    end = clock() + BUDGET_S
    for candidate in candidates:
        warm_up(candidate)
    best = [float("inf")] * len(candidates)
    for turn, i in itertools.product(range(TURNS), range(len(candidates))):
        start = clock()
        if turn and start + best[i] > end:
            break
        run(candidates[i])
        best[i] = min(best[i], clock() - start)
    return candidates[best.index(min(best))]
