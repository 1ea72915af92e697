"""Faults of what is written to: the disk, and the store of events."""

import contextlib
import resource
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import psutil  # type: ignore[import-untyped]

from bench.faults.case import BUSY, Case, Sandbox
from bench.faults.requests import feedback, put
from bench.local_server import BenchError


class FullDisk(Case):
    """The home folder's file system has no byte left, where this user may mount one; else no process may make a file larger."""

    name = "full-disk"
    breaks = "the disk of index and events is full"
    size = "640m"
    """Above what the embedded engine wants to have free before it writes."""

    def prepare(self, sandbox: Sandbox) -> None:
        self._index = sandbox.home / "index"
        self._events = sandbox.home / "events"
        sandbox.environment["MATINEE_EVENTS__URI"] = str(self._events)
        kept = self._index.rename(sandbox.home / "index.before")
        self._index.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "matinee-faults", str(self._index)]
        self._mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        if self._mounted:
            sandbox.exits.callback(subprocess.run, ["umount", "--lazy", str(self._index)], check=False)
            self._events = self._index / ".events"
            sandbox.environment["MATINEE_EVENTS__URI"] = str(self._events)
            subprocess.run(["cp", "--recursive", "--sparse=always", f"{kept}/.", str(self._index)], check=True)
        else:
            self._index.rmdir()
            kept.rename(self._index)

    def start(self, sandbox: Sandbox) -> None:
        if put(sandbox, 1) != 200:
            raise BenchError("a write failed before the disk was full")
        if self._mounted:
            _fill(self._index / "fill")
            sandbox.notes.append("a full tmpfs")
        else:
            self._limit(sandbox, 0)
            sandbox.notes.append("files may not grow (RLIMIT_FSIZE): no file system could be mounted here")
        self._writes = [put(sandbox, n) for n in range(2, 5)]

    def end(self, sandbox: Sandbox) -> None:
        if self._mounted:
            (self._index / "fill").unlink(missing_ok=True)
        else:
            self._limit(sandbox, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(sandbox: Sandbox, limit: int) -> None:
        for _, process in sandbox.server.processes():
            with contextlib.suppress(psutil.Error):
                process.rlimit(psutil.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def check(self, sandbox: Sandbox) -> list[str]:
        sandbox.notes.append(f"writes answered {self._writes} while it was full")
        problems = [] if set(self._writes) <= {200, *BUSY} else [f"writes answered {self._writes} while it was full"]
        after = put(sandbox, 5)
        return problems + ([] if after == 200 else [f"a write after that is answered with {after}"])


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


class FullEvents(Case):
    """The store of events can't be written, and little may wait."""

    name = "full-events"
    breaks = "the event store can't be written, and the queue of events is full"
    settings: ClassVar[dict[str, str]] = {
        "MATINEE_EVENTS__MAX_WAITING": "20",
        "MATINEE_EVENTS__FLUSH_EVENTS": "10",
        "MATINEE_EVENTS__FLUSH_S": "0.5",
    }
    allowed = frozenset()

    def prepare(self, sandbox: Sandbox) -> None:
        self._events = sandbox.home / "events"
        sandbox.environment["MATINEE_EVENTS__URI"] = str(self._events)

    def start(self, sandbox: Sandbox) -> None:
        """A file is where its folder belongs."""
        if self._events.exists():
            self._events.rename(sandbox.home / "events.before")
        self._events.touch()

    def end(self, sandbox: Sandbox) -> None:
        until = time.monotonic() + 10
        while (status := feedback(sandbox)) not in BUSY and time.monotonic() < until:
            # The load has to fill the queue first.
            time.sleep(0.05)
        self._feedback = status
        self._events.unlink()

    def check(self, sandbox: Sandbox) -> list[str]:
        sandbox.notes.append(f"feedback answered {self._feedback} while it was full")
        problems = [] if self._feedback in BUSY else [f"feedback was answered with {self._feedback} while it was full"]
        start = time.monotonic()
        while not any(self._events.rglob("*.jsonl")):
            if time.monotonic() - start > 30:
                return [*problems, "no events are written any more"]
            time.sleep(0.1)
        return problems
