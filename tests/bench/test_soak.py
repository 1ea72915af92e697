"""What a soak calls growth, on samples that are made up; and a short soak of a real server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.soak import measure
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[2]


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


@pytest.mark.full
@pytest.mark.parametrize(
    ("placement", "parts"),
    [("process", {"server"}), ("ray", {"server", "gateway", "embedder", "retriever", "enhancer", "controller", "proxy", "gcs", "raylet"})],
)
def test_a_soak_of_a_server_reports_every_part(placement: str, parts: set[str], tmp_path: Path) -> None:
    """The command to its end. In short: its judgement above, and its server and load in `test_a_full_event_store_costs_no_answer`.

    So short a run says nothing about growth.
    """
    out = tmp_path / "soak.json"
    words = ["--hours", "0.01", "--every", "4", "--rate", "4", "--placement", placement, "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", *words], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    report = json.loads(out.read_text(encoding="utf-8"))
    assert done.returncode == (report["verdict"] != "nothing grows"), done.stderr
    assert "failed" not in report["verdict"]
    assert len(report["samples"]) >= 6
    assert all(sample["load"]["failed"] == 0 for sample in report["samples"])
    figures = {(growth["part"], growth["figure"]) for growth in report["growth"]}
    assert {(part, figure) for part in parts for figure in ("PSS, MB", "threads", "sockets", "files")} <= figures
    assert {("requests", "p50, ms"), ("requests", "p99, ms"), ("gateway's requests", "under way")} <= figures
    assert any(part.endswith("'s queue") for part, _ in figures)
    assert all(growth["first"] >= 0 and growth["last"] >= 0 for growth in report["growth"])
    assert report["events_dropped"] == 0
    assert "events dropped" in done.stdout
