"""Faults inside a process, which `bench.faults.injected` causes: a model that hangs, and clocks."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from bench.faults.case import BUSY, Case, Sandbox
from bench.faults.injected import FAULT
from bench.faults.requests import post, revision
from bench.load import NO_CONNECTION
from bench.local_server import BenchError
from bench.traffic import TrafficLine, describe, reads

ROOT = Path(__file__).parents[2]
SHORT = {"MATINEE_ENHANCER__DEADLINE_S": "4", "MATINEE_ENHANCER__MAX_NEW_TOKENS": "8", "MATINEE_ENHANCER__RETRIES": "0"}


class Injection(Case):
    """A fault that `bench.faults.injected` causes."""

    module = "bench.faults.injected"

    def prepare(self, sandbox: Sandbox) -> None:
        self._file = sandbox.home / "fault.json"
        sandbox.environment[FAULT] = str(self._file)
        # Ray's workers have another working folder, and have to find `bench` too.
        sandbox.environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

    def inject(self, **fault: Any) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(fault), encoding="utf-8")
        temporary.replace(self._file)

    def end(self, sandbox: Sandbox) -> None:
        self._file.unlink(missing_ok=True)


class HungEnhancer(Injection):
    """Shorter than `enhancer.hang_s`: the model comes back."""

    name = "hung-enhancer"
    breaks = "the enhancer's model hangs"
    settings: ClassVar[dict[str, str]] = SHORT
    degrades = True

    def lines(self, url: str) -> list[TrafficLine]:
        """One in forty needs a description, which takes a second of a CPU."""
        lines = reads(url)
        for n in range(0, len(lines), 40):
            lines[n] = describe(n)
        return lines

    def measure(self, sandbox: Sandbox) -> None:
        """The model is loaded when it is first needed, which is another matter."""
        post(sandbox, describe(-1))

    def start(self, sandbox: Sandbox) -> None:
        self.inject(hang=True)


class StuckEnhancer(HungEnhancer):
    """Longer than that: what holds the model has to be replaced, which in one process is the server."""

    name = "stuck-enhancer"
    breaks = "the enhancer's model hangs for longer than enhancer.hang_s; a server that ends is started again"
    placements = ("process",)
    settings: ClassVar[dict[str, str]] = SHORT | {"MATINEE_ENHANCER__HANG_S": "15"}
    seconds = 0.0
    allowed = BUSY | {NO_CONNECTION, 504}
    recover_s = 120.0

    def start(self, sandbox: Sandbox) -> None:
        assert sandbox.server.process is not None
        self.inject(hang=True)
        start = time.monotonic()
        try:
            code = sandbox.server.process.wait(90)
        except subprocess.TimeoutExpired:
            raise BenchError("a model hangs, and the server goes on as if it did not") from None
        sandbox.notes.append(f"the server ended with {code} after {time.monotonic() - start:.1f} s")
        self.inject()
        sandbox.server.start()

    def end(self, sandbox: Sandbox) -> None:
        sandbox.server.wait_ready()


class ClockStep(Injection):
    """An hour ahead, and back again: no deadline may notice, and no revision may go backwards."""

    name = "clock-step"
    breaks = "the machine's clock jumps an hour ahead, and back"
    placements = ("process",)
    allowed = frozenset()
    ahead_s = 3600.0

    def start(self, sandbox: Sandbox) -> None:
        self._before = revision(sandbox)
        self.inject(clock_s=self.ahead_s)
        time.sleep(1)
        self._ahead = revision(sandbox)

    def check(self, sandbox: Sandbox) -> list[str]:
        after = revision(sandbox)
        seconds = (self._ahead - self._before) / 1e6
        if seconds < self.ahead_s:
            return [f"the clock was not moved: {seconds:.0f} s between two writes"]
        return [] if after > self._ahead else [f"the revision of a later write is lower: {after} after {self._ahead}"]


class ClockSkew(Injection):
    """One machine's clock is ahead of the others'."""

    name = "clock-skew"
    breaks = "the Retriever's clock is 60 s ahead of the gateway's"
    placements = ("ray",)
    allowed = frozenset()

    def start(self, sandbox: Sandbox) -> None:
        before = revision(sandbox)
        self.inject(clock_s=60.0, pids=[sandbox.server.part("retriever").pid])
        time.sleep(1)
        if revision(sandbox) - before < 50e6:
            raise BenchError("the Retriever's clock was not moved")
