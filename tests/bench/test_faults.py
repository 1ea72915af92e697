"""The command that breaks a server: one quick case to its end, the judgement of what its load saw, and the stand-in for Qdrant."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bench.faults.__main__ import CASES
from bench.faults.case import CUT_OFF, Case
from bench.faults.fake_qdrant import Fake
from bench.faults.run import CaseResult, evaluate_case
from bench.load import NO_ANSWER, NO_CONNECTION, Answer, OpenLoop
from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.types import DenseQuery, Search
from tests.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with some of the bundled films."""
    folder = tmp_path_factory.mktemp("home")
    models = Path.home() / ".matinee" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(models)
    asyncio.run(local_graph.build_index(local_graph.local_settings(folder), local_graph.demo_films()[:20]))
    return folder


def faults(home: Path, *words: str) -> list[dict[str, Any]]:
    """The rows of a run to its end."""
    out = home / "rows.json"
    command = [sys.executable, "-m", "bench.faults", "--home", str(home), "--json", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert out.exists(), done.stderr
    rows: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    assert done.returncode == any(row["problems"] for row in rows), done.stderr
    assert all(f"| {row['case']}" in done.stdout for row in rows)
    return rows


def test_a_full_event_store_costs_no_answer(home: Path) -> None:
    [row] = faults(home, "--only", "full-events", "--placement", "process", "--seconds", "1")
    assert row["verdict"] == "ok"
    assert row["sent"] > 20
    assert row["failed"] == {}
    assert row["notes"] == ["feedback answered 503 while it was full"]


MISSED = pytest.mark.xfail(reason="neither proxy of Ray Serve bears an overload on two cores: docs/reliability.md", strict=False)
PLAYED = [
    pytest.param(case.name, placement, marks=MISSED if (case.name, placement) == ("overload", "ray") else ())
    for case in CASES
    for placement in case.placements
]


@pytest.mark.full
@pytest.mark.parametrize(("case", "placement"), PLAYED)
def test_every_case_is_ok(home: Path, case: str, placement: str) -> None:
    """The same command as in `test_a_full_event_store_costs_no_answer`. Not judged: how long answers and recoveries take."""
    rows = faults(home, "--only", case, "--placement", placement, "--seconds", "5")
    problems = [problem for row in rows for problem in row["problems"] if not problem.startswith(("well again after", "p99 of"))]
    assert problems == []


class Gentle(Case):
    name = "gentle"
    allowed = CUT_OFF
    recover_s = 2.0

    def start(self, sandbox: Any) -> None:
        raise AssertionError("only judged here")


def judged(*answers: Answer, recovered: bool = True) -> CaseResult:
    """The row of a fault from 10 to 20 s."""
    row = CaseResult("gentle", "nothing", "process")
    evaluate_case(Gentle(), row, answers, 10.0, 20.0, recovered)
    return row


def good(due_s: float) -> Answer:
    return Answer(0, due_s, 5.0, 200)


def test_failures_that_are_right_are_counted_and_no_problem() -> None:
    refused, cut = Answer(1, 12.0, 1.0, 503, retry_after=True), Answer(2, 21.0, 1.0, NO_CONNECTION)
    row = judged(good(1.0), refused, cut, good(22.0))
    assert row.failed == {"503": 1, "no connection": 1}
    assert (row.sent, row.recovered_s, row.verdict) == (3, 1.0, "ok")


def test_a_request_that_was_under_way_when_the_fault_began_is_the_fault_s() -> None:
    assert judged(Answer(0, 9.9, 200.0, NO_CONNECTION), good(15.0)).failed == {"no connection": 1}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(0, 12.0, 1.0, 500), "1 x 500"),
        (Answer(0, 12.0, 20_000.0, NO_ANSWER), "1 x no answer"),
        (Answer(0, 12.0, 1.0, 503), "1 x 503 without Retry-After"),
        (Answer(0, 12.0, 1.0, 200, degraded=True), "1 answers without a part"),
        (Answer(0, 23.0, 1.0, 503, retry_after=True), "well again after 3.0 s, at most 2"),
        (Answer(0, 5.0, 1.0, 500), "1 of 1 requests had failed before the fault: the machine is too busy"),
    ],
)
def test_each_kind_of_wrong_is_a_problem(answer: Answer, problem: str) -> None:
    assert judged(answer, good(25.0)).problems == [problem]


def test_slow_answers_are_no_recovery() -> None:
    """A second counts by its median. The fault ends at 20 s; before it, answers took 5 ms."""
    slow = [Answer(0, 20 + n / 20, 60.0 if n < 72 else 5.0, 200) for n in range(100)]
    assert judged(good(1.0), *slow).problems == ["well again after 4.0 s, at most 2"]
    few = [Answer(0, 20 + n / 20, 500.0 if n % 20 == 0 else 5.0, 200) for n in range(100)]
    assert judged(good(1.0), *few).recovered_s == 0.0
    assert judged(good(1.0), *[Answer(0, 20 + n / 20, 54.0, 200) for n in range(100)]).recovered_s == 0.0


def test_no_recovery_is_a_problem() -> None:
    row = judged(good(15.0), recovered=False)
    assert row.recovered_s is None
    assert row.problems == ["not well again within 180 s"]


async def test_the_load_counts_servers_that_hang_or_are_not_there() -> None:
    """Neither stops it: it goes on at its rate."""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        heard: list[Answer] = []
        load = OpenLoop(hangs.getsockname(), [b"GET / HTTP/1.1\r\n\r\n"], 100.0, 0.2, heard.append)
        await load.run(0.05, 0)
        assert [answer.status for answer in heard] == [NO_ANSWER] * 5
    heard.clear()
    await load.run(0.05, 0)
    assert [answer.status for answer in heard] == [NO_CONNECTION] * 5


@contextmanager
def served(fake: Fake) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(fake.app, log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(HANG_S)


async def test_the_stand_in_for_qdrant_holds_an_index(local_graph: Any, tmp_path: Path) -> None:
    """A build, a switch and a search through the real client, over HTTP."""
    with served(Fake()) as url:
        settings = local_graph.local_settings(tmp_path, index={"engine": "qdrant", "url": url})
        embedder, films = local_graph.embedder_replica().slot.model, local_graph.demo_films()[:5]
        store = open_store(settings)
        outcome = await Build(store, PointMaker(embedder, "raw"), "demo", "test", keep=2).run(films)
        assert await store.current() == outcome.manifest
        index = await store.open(outcome.manifest.version)
        [hit] = await index.retrieve([films[2].uid("demo")], vectors=True)
        assert hit is not None
        assert hit.vector is not None
        [[best]] = await index.search([Search(DenseQuery(hit.vector), 1)])
        assert best.id == hit.id
        await store.close()
