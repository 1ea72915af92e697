"""What a soak calls growth, on samples that are made up."""

from typing import Any

import pytest

from bench.soak import measure


def samples(value: Any, count: int = 40) -> list[dict[str, Any]]:
    """One a minute; `value(n)` MB, and queues that are one call long."""
    return [
        {
            "at_s": 60.0 * n,
            "parts": {"server": {"PSS, MB": value(n), "threads": 20}},
            "load": {"p50, ms": 5.0, "failed": 0},
            "queues": {"embedder": 60_000.0 * n},
        }
        for n in range(1, count + 1)
    ]


def grown(value: Any) -> bool:
    [memory] = [growth for growth in measure(samples(value)) if growth.figure == "PSS, MB"]
    return memory.grows


def test_a_leak_grows() -> None:
    assert grown(lambda n: 1000 + 2 * n + n % 7)


@pytest.mark.parametrize(
    "value",
    [
        lambda n: 1000 + 50 * (n % 5),
        # What is allocated once, and the warm-up.
        lambda n: 1000 if n < 30 else 1040,
        lambda n: min(1000, 500 + 100 * n),
    ],
)
def test_what_stays_or_settles_does_not(value: Any) -> None:
    assert not grown(value)


def test_a_queue_has_the_mean_length_that_its_waits_add_up_to() -> None:
    [queue] = [growth for growth in measure(samples(lambda n: 1000)) if growth.part == "embedder's queue"]
    assert (queue.first, queue.last, queue.grows) == (pytest.approx(1.0), pytest.approx(1.0), False)
