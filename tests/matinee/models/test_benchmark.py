"""`matinee.models.benchmark`: encoders take turns, until each has run five times or the budget is used up."""

from collections.abc import Iterator

import pytest

from matinee.models.benchmark import BUDGET_S, pick_fastest


class Clock:
    """Goes on by what an encoder takes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Encoder:
    """Takes the next of `seconds` for each run, and a tenth of the first to warm up."""

    def __init__(self, name: str, clock: Clock, seconds: Iterator[float]) -> None:
        self.name, self._clock, self._seconds = name, clock, seconds

    def warm_up(self) -> None:
        self._clock.now += 0.001

    def run(self) -> None:
        self._clock.now += next(self._seconds)


def measured(**seconds: list[float]) -> tuple[str, list[str], float]:
    """The fastest encoder, which ran in which order, and the seconds that it took."""
    clock, ran = Clock(), list[str]()
    encoders = [Encoder(name, clock, iter([*each, *each[-1:] * 9])) for name, each in seconds.items()]

    def run(encoder: Encoder) -> None:
        ran.append(encoder.name)
        encoder.run()

    chosen = pick_fastest(encoders, Encoder.warm_up, run, clock=clock)
    return chosen.name, ran, clock.now - 1000.0


def test_quick_encoders_run_five_times_each_in_turns() -> None:
    # The first run of the one and the last of the other are slow for another reason.
    chosen, ran, _ = measured(a=[0.3, 0.01], b=[0.02, 0.02, 0.02, 0.02, 0.3], c=[0.03])
    assert (chosen, ran) == ("a", ["a", "b", "c"] * 5)


def test_slow_encoders_stop_before_the_budget_is_used_up() -> None:
    chosen, ran, took = measured(a=[0.5], b=[0.3], c=[0.4])
    assert (chosen, ran) == ("b", ["a", "b", "c", "a"])
    assert took <= BUDGET_S


@pytest.mark.parametrize("slow", [2.0, 60.0])
def test_encoders_that_need_more_than_the_budget_run_once_each(slow: float) -> None:
    assert measured(a=[slow], b=[slow / 2])[:2] == ("b", ["a", "b"])
