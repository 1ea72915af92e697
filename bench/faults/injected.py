"""`python -m serve` with faults that a file injects: what can't be broken from outside a process.

    BENCH_FAULT=fault.json python -m bench.faults.injected --port 8000

The file is JSON and may change at any time: `clock_s` is added to the clock of the processes in `pids` (of all, without it), and while
`hang` is true, the enhancer's model does not come back. Without the file nothing is changed.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULT = "BENCH_FAULT"
READ_S = 0.2


class _Fault:
    """What the file says, at most `READ_S` old."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = float("-inf")
        self._content: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        if time.monotonic() - self._read_at > READ_S:
            self._read_at = time.monotonic()
            try:
                self._content = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._content = {}
        return self._content

    def clock_s(self) -> float:
        fault = self()
        return float(fault.get("clock_s", 0.0)) if os.getpid() in fault.get("pids", [os.getpid()]) else 0.0


def inject() -> None:
    """Inject the faults into this process. Ray calls it in each of its workers, before anything else."""
    fault = _Fault(Path(os.environ[FAULT]))
    _inject_clock(fault)
    _inject_enhancer(fault)


def _inject_clock(fault: _Fault) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + fault.clock_s()
    time.time_ns = lambda: now_ns() + int(fault.clock_s() * 1e9)


def _inject_enhancer(fault: _Fault) -> None:
    from matinee.models.enhancer import Enhancer

    describe: Callable[..., Any] = Enhancer.describe

    def injected(self: Enhancer, *args: Any, **kwargs: Any) -> Any:
        while fault().get("hang"):
            time.sleep(READ_S)
        return describe(self, *args, **kwargs)

    setattr(Enhancer, "describe", injected)  # noqa: B010  mypy lets no method be assigned


def main() -> None:
    from matinee.settings import local_ray
    from serve.__main__ import app

    inject()
    start = local_ray.start

    def start_with_fault(init: Callable[..., object], **options: Any) -> None:
        start(init, runtime_env={"worker_process_setup_hook": "bench.faults.injected.inject"}, **options)

    local_ray.start = start_with_fault
    app()


if __name__ == "__main__":
    main()
