"""`train.sync` as a process: it is killed and run again, it repeats, its server goes away and comes back, it is told to stop."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from matinee.client.http import Client
from matinee.client.items import Items
from tests.waiting import HANG_S, until
from train.syncing.state import StateFile

ROOT = Path(__file__).parents[3]
MANY = 300


class Process:
    """`python -m train.sync`."""

    def __init__(self, shop: Any, *arguments: object) -> None:
        self.log = shop.home.with_name(f"sync-{id(self)}.log")
        env = os.environ | {"MATINEE_HOME": str(shop.home), "MATINEE_URL": shop.url, "PYTHONUNBUFFERED": "1"}
        words = [sys.executable, "-m", "train.sync", *map(str, arguments)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=out)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def says(self, pattern: str, times: int = 1) -> str:
        """Wait until it has said this so many times; the last one."""

        def found() -> list[str] | None:
            assert self.process.poll() is None, self.text()
            matches = re.findall(pattern, self.text())
            return matches if len(matches) >= times else None

        return str(until(found, self.text)[-1])


@pytest.fixture
def start(shop: Any) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*arguments: object) -> Process:
        started.append(Process(shop, *arguments))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(HANG_S)


def test_one_that_is_killed_in_the_middle_of_its_import_is_run_again(
    shop: Any, tools: Any, write: Callable[..., Path], start: Callable[..., Process]
) -> None:
    """The import goes on without it; the next run waits for its end, and does what is left."""
    films = [tools.film(n) for n in range(1, MANY)]
    items = Items(Client(shop.url))
    before = {state.id for state in items.imports()}
    killed = start(write(films))
    until(lambda: {state.id for state in items.imports()} - before, killed.text)
    killed.process.kill()
    killed.process.wait(HANG_S)
    assert "f0" in shop.titles(), "nothing is deleted before all is written"
    report = shop.sync(write([*films, tools.film(MANY)]))
    assert tools.counts(report) == {"written": 1, "deleted": 1, "unchanged": MANY - 1}
    assert shop.titles() == {film["id"]: film["title"] for film in [*films, tools.film(MANY)]}
    assert [state.status for state in items.imports() if state.id not in before] == ["done", "done"]


def test_one_process_at_a_time_syncs_a_source(shop: Any, tools: Any, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = write([tools.film(n) for n in range(tools.BASE)]), []
    lock = StateFile.lock

    def twice(self: StateFile) -> Any:
        with pytest.MonkeyPatch.context() as patch, lock(self):
            patch.setattr(StateFile, "lock", lock)
            done = shop.invoke(source)
            said.append((done.exit_code, done.stderr))
        return lock(self)

    monkeypatch.setattr(StateFile, "lock", twice)
    shop.sync(source)
    [(code, message)] = said
    assert code == 3
    assert "synced by another process" in message


def test_rounds_repeat_and_tell_prometheus(shop: Any, tools: Any, write: Callable[..., Path], start: Callable[..., Process]) -> None:
    films = [tools.film(n) for n in range(tools.BASE)]
    source = write(films)
    running = start(source, "--every", 1, "--metrics-port", 0, "--patience", 0)
    url = running.says(r"metrics on (http://\S+)")
    assert url.startswith("http://127.0.0.1:")
    running.says("10 unchanged")

    def metric(name: str) -> float | None:
        found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(url).text, re.MULTILINE)
        return None if found is None else float(found[1])

    success = until(lambda: metric("matinee_sync_last_success_timestamp_seconds"))
    source.rename(source.with_suffix(".aside"))
    running.says("failed: .*there is no catalogue file")
    assert until(lambda: metric('matinee_sync_failures_total{reason="source"}'))
    write([*films, tools.film(10)])
    running.says("1 items written")
    assert until(lambda: (metric("matinee_sync_last_success_timestamp_seconds") or 0) > success)
    assert metric('matinee_sync_items_total{change="written"}') == 1
    assert (metric("matinee_sync_rounds_total") or 0) >= 3
    assert metric("matinee_sync_round_seconds")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(HANG_S) == 0
    assert "Traceback" not in running.text()


def test_a_server_that_is_gone_is_asked_again(
    local_graph: Any, shop: Any, tools: Any, write: Callable[..., Path], start: Callable[..., Process]
) -> None:
    source = write([tools.film(n) for n in range(tools.BASE)])
    gone = start(source, "--every", 1, "--patience", 0, "--url", "http://127.0.0.1:1")
    gone.says("failed: .*does not answer", times=2)
    once = shop.invoke(source, "--url", "http://127.0.0.1:1")
    assert once.exit_code == 5
    assert "does not answer" in once.stderr
