"""Priorities of threads: a model's arithmetic takes the cores that the event loop leaves.

Without it, each of a model's threads gets as much of a core as the event loop. Under an overload the loop then falls seconds behind, and no
queue counts that wait. Threads that run Python keep their priority: one that held the interpreter's lock and got no core would stop all.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NICER = 10
"""Added to the niceness of the process: a thread of it then gets about a tenth of another's share. Ray's workers have 15 already, of 19."""

_TASKS = Path("/proc/self/task")


@contextmanager
def background_threads() -> Iterator[None]:
    """The threads that libraries start meanwhile, such as a model's, give way to all others. Only Linux has a niceness for each thread."""
    before = _native_threads()
    try:
        yield
    finally:
        # From the niceness of this thread: two models that load at once see each other's threads, which are lowered once.
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICER)
        for thread in _native_threads() - before:
            # It may have ended.
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _native_threads() -> set[int]:
    """Ids of this process's threads that run no Python code."""
    if not _TASKS.exists():
        return set()
    while True:
        # List all threads first, then Python's. A Python thread that starts in between is then in the second list only.
        threads = {int(task.name) for task in _TASKS.iterdir()}
        python = {thread.native_id for thread in threading.enumerate()}
        if None not in python:
            return threads - python
        # A Python thread has started, but its native id is not set yet.
        time.sleep(0.001)
