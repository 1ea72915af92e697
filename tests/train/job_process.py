"""Training jobs as processes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.programs_environment import clean
from tests.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]


class Job:
    """A training job as a process of its own, killed whole. It gets no setting but `settings`, and no token of the tests' own Ray.

    `python` starts it in another way than `python -m train.JOB`.
    """

    def __init__(
        self,
        job: str,
        out: Path,
        *args: object,
        home: Path,
        threads: int = 2,
        settings: dict[str, str] | None = None,
        python: list[str] | None = None,
    ) -> None:
        self.log = out / "progress.jsonl"
        environment = clean() | {"MATINEE_HOME": str(home), "OMP_NUM_THREADS": str(threads)} | (settings or {})
        command = [*(python or [sys.executable, "-m", f"train.{job}"]), *map(str, args), "--out", str(out)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rows(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().rpartition("\n")[0].splitlines()]

    def starts(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if "from_step" in row]

    def until(self, done: Callable[[], Any], seconds: float = HANG_S) -> None:
        def checked() -> Any:
            if value := done():
                return value
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            return None

        until(checked, self.rows, seconds)

    def finish(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, err

    def kill(self) -> None:
        """The driver's own Ray dies with it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def starting() -> Iterator[Callable[..., Job]]:
    """Starts jobs, and leaves none behind."""
    started: list[Job] = []

    def begin(*args: Any, **options: Any) -> Job:
        started.append(Job(*args, **options))
        return started[-1]

    yield begin
    for job in started:
        if job.process.poll() is None:
            job.kill()
