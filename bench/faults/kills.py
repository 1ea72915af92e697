"""kill -9 of each process, and stopped ones. Whoever started the server starts it again where it ended, as systemd or a kubelet would."""

import contextlib
import time

import psutil  # type: ignore[import-untyped]

from bench.faults.case import BUSY, CUT_OFF, Case, Sandbox
from bench.load import NO_ANSWER
from bench.local_server import BenchError

DEAD_S = 120.0
STARTING = CUT_OFF | {404, 408, NO_ANSWER}
"""What Ray Serve's proxy answers before it knows its applications."""


class KillServer(Case):
    """The process that was started by hand: all of the server in one process, or the head of its Ray."""

    name = "kill-server"
    breaks = "kill -9 of `python -m serve`; started again at once"
    seconds = 0.0

    def __init__(self, placement: str) -> None:
        self.placements = (placement,)
        self.allowed = CUT_OFF | {504} if placement == "process" else STARTING | {504}
        self.recover_s = 120.0 if placement == "process" else 180.0

    def start(self, sandbox: Sandbox) -> None:
        assert sandbox.server.process is not None
        sandbox.server.process.kill()
        sandbox.server.process.wait()
        if sandbox.placement == "ray":
            _wait_gone(sandbox)
        sandbox.server.start()

    def end(self, sandbox: Sandbox) -> None:
        sandbox.server.wait_ready()


def _wait_gone(sandbox: Sandbox) -> None:
    """Without its driver, nothing of Ray may be left: it would hold the port and the index."""
    start = time.monotonic()
    while left := sandbox.server.processes():
        if time.monotonic() - start > DEAD_S:
            raise BenchError(f"{DEAD_S:.0f} s after `python -m serve` was killed these still run: {', '.join(part for part, _ in left)}")
        time.sleep(0.2)
    sandbox.notes.append(f"Ray's processes were gone after {time.monotonic() - start:.1f} s")


class KillPart(Case):
    """A process of Ray's that is put right from within."""

    placements = ("ray",)
    seconds = 0.0
    recover_s = 60.0

    def __init__(self, part: str, *, allowed: frozenset[int] = BUSY | {504}) -> None:
        self.name = f"kill-{part}"
        self.breaks = f"kill -9 of the {part}"
        self.allowed = allowed
        self.degrades = part == "enhancer"
        self._part = part
        self._killed: psutil.Process | None = None

    def start(self, sandbox: Sandbox) -> None:
        self._killed = sandbox.server.part(self._part)
        self._killed.kill()

    def check(self, sandbox: Sandbox) -> list[str]:
        """What was killed is there again: answers alone would not show that of the controller."""
        start = time.monotonic()
        while time.monotonic() - start < DEAD_S:
            with contextlib.suppress(BenchError):
                if sandbox.server.part(self._part) != self._killed:
                    return []
            time.sleep(0.2)
        return [f"no other {self._part} was started"]


class KillHead(Case):
    """A process without which Ray can't go on: the server has to end, so that whoever started it starts it again."""

    placements = ("ray",)
    seconds = 0.0
    allowed = STARTING | {504}
    recover_s = 240.0

    def __init__(self, part: str, breaks: str) -> None:
        self.name = f"kill-{part}"
        self.breaks = breaks
        self._part = part

    def start(self, sandbox: Sandbox) -> None:
        assert sandbox.server.process is not None
        sandbox.server.part(self._part).kill()
        start = time.monotonic()
        while sandbox.server.process.poll() is None:
            if time.monotonic() - start > DEAD_S:
                raise BenchError(f"`python -m serve` still runs {DEAD_S:.0f} s after its {self._part} was killed: nobody starts it again")
            time.sleep(0.1)
        sandbox.notes.append(f"the server ended with {sandbox.server.process.returncode} after {time.monotonic() - start:.1f} s")
        _wait_gone(sandbox)
        sandbox.server.start()

    def end(self, sandbox: Sandbox) -> None:
        sandbox.server.wait_ready()
