"""Priorities of threads: a model's arithmetic gives way to Python."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from serve.graph.model_slot import ModelSlot
from serve.graph.thread_priority import NICER, background_threads
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.serve.graph.echo import Echo, Wish
from tests.waiting import HANG_S


@contextmanager
def native_thread() -> Iterator[Callable[[Wish], Echo]]:
    """Loads a model that starts a thread without Python, as libraries do; the thread ends with the `with`."""
    libc, thread = ctypes.CDLL(None), ctypes.c_ulong()

    def load(wish: Wish) -> Echo:
        assert libc.pthread_create(ctypes.byref(thread), None, libc.sleep, ctypes.c_void_p(HANG_S)) == 0
        return Echo(wish.name)

    yield load
    libc.pthread_cancel(thread)
    libc.pthread_join(thread, None)


def all_threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def python_threads() -> list[int | None]:
    return [thread.native_id for thread in threading.enumerate()]


def niceness(threads: Iterable[int | None]) -> list[int]:
    found = []
    for thread in filter(None, threads):
        # It may have ended.
        with suppress(ProcessLookupError):
            found.append(os.getpriority(os.PRIO_PROCESS, thread))
    return found


async def test_a_models_own_threads_give_way_and_pythons_do_not() -> None:
    """One that held the interpreter's lock, and got no core, would stop the event loop that it is to make room for."""

    ours = os.getpriority(os.PRIO_PROCESS, 0)
    below = min(19, ours + NICER)
    before = all_threads()
    with native_thread() as load:
        # Models that load at once, in one process, see each other's threads.
        with background_threads(), background_threads():
            ModelSlot("part", Wish("one"), load, lambda _: None, Metrics(MemorySink()))
        # Some of Python's are among them.
        assert {below} <= set(niceness(all_threads() - before)) <= {below, ours}
        assert set(niceness(python_threads())) == {ours}


def test_a_thread_of_python_that_just_begins_is_not_taken_for_a_models(monkeypatch: pytest.MonkeyPatch) -> None:
    class Beginning(threading.Thread):
        """Exists, but has no id yet, until somebody has looked."""

        def _set_native_id(self) -> None:
            exists.set()
            assert seen.wait(HANG_S)
            super()._set_native_id()  # type: ignore[misc]

    def looked() -> list[threading.Thread]:
        threads = enumerate_threads()
        if exists.is_set():
            seen.set()
        return threads

    exists, seen, ends, enumerate_threads = threading.Event(), threading.Event(), threading.Event(), threading.enumerate
    monkeypatch.setattr(threading, "enumerate", looked)
    beginning = Beginning(target=ends.wait, daemon=True)
    # It returns when the other one has its id.
    starter = threading.Thread(target=beginning.start, daemon=True)
    with background_threads():
        starter.start()
        assert exists.wait(HANG_S)
    starter.join()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness([beginning.native_id]) == [ours]
    ends.set()
    beginning.join()
