"""The files by which a running process is found: `server.json` in the home directory names the server, `probe.json` the recall probe."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from matinee.files import write_atomically
from matinee.settings.tree import Settings


class RunningProcess(TypedDict):
    """Where a process answers (or what it probes), and where its metrics are; None: nowhere."""

    url: str
    pid: int
    metrics: NotRequired[str | None]


def read_server_file(path: Path) -> RunningProcess | None:
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(named, dict) and isinstance(named.get("url"), str) and isinstance(named.get("pid"), int)
    return cast(RunningProcess, named) if whole else None


def read_living(path: Path) -> RunningProcess | None:
    """What the file says, None also where the process that wrote it has died."""
    named = read_server_file(path)
    return named if named is not None and _is_alive(named["pid"]) else None


def probe_file(settings: Settings) -> Path:
    return settings.server_file.with_name("probe.json")


@contextmanager
def announce(path: Path, url: str, metrics: str | None) -> Iterator[None]:
    """Say in `path` that this process serves (or probes) `url`, and where its metrics are (None: nowhere), until the end of the `with`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"url": url, "pid": os.getpid(), "metrics": metrics}), mode=0o600)
    try:
        yield
    finally:
        named = read_server_file(path)
        # Another may have taken the place.
        if named is not None and named["pid"] == os.getpid():
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
