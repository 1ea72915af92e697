"""`bench.cpu`: samples of py-spy become shares of the parts, and a library's time that of the code which called it."""

import pytest

from bench.cpu import part_of, shares_by_thread

LOOP = ["thread (0x1F): MainThread", "<module> (/app/serve/__main__.py)", "run (/usr/lib/python3.11/asyncio/runners.py)"]


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        (LOOP, "HTTP and event loop"),
        ([*LOOP, "search (/app/serve/api/search.py)"], "routes"),
        ([*LOOP, "search (/app/matinee/index/edge/index.py:120)", "dumps (/usr/lib/python3.11/json/__init__.py)"], "index"),
        ([*LOOP, "_log (/app/serve/telemetry/logs.py)"], "metrics, logs, traces"),
        (["main (/elsewhere.py)"], "other"),
    ],
)
def test_a_sample_belongs_to_the_innermost_function_of_a_part(frames: list[str], part: str) -> None:
    assert part_of(frames) == part


def test_each_thread_has_its_own_shares() -> None:
    stacks = [f"{';'.join(LOOP)} 30", f"{';'.join([*LOOP, 'rank (/app/matinee/recommend/ranking.py)'])} 10"]
    stacks.append("thread (32);run (/app/matinee/models/embedder.py) 5")
    assert shares_by_thread("\n".join(stacks)) == {31: {"HTTP and event loop": 0.75, "ranking": 0.25}, 32: {"encoder": 1.0}}
