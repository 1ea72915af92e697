"""What the embedded engine needs of the file system: locks, atomic replacement, and errors that say what to do.

Knows no index: folders and files only. Locks are advisory (`flock`), so they end with their process however it ends.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from matinee.errors import IndexLockedError, IndexUnavailableError, MatineeError
from matinee.files import write_atomically

# What one batch can make the engine add: 32 MB steps of its log, its payload pages and each vector storage.
_RESERVE = 256 << 20

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(work: Callable[P, T]) -> Callable[P, Coroutine[object, None, T]]:
    """A function that waits for the disk, as one to be awaited."""

    @wraps(work)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    return run


@contextmanager
def explain(path: Path) -> Iterator[None]:
    """Errors of the engine and the disk, as ours. Our own and a caller's mistake pass as they are."""
    try:
        yield
    except (MatineeError, ValueError, TypeError):
        raise
    except Exception as error:  # the engine raises plain `Exception`, told apart by its text alone
        text = str(error)
        if "WouldBlock" in text:
            raise locked_error(path) from error
        if "Vector dimension error" in text or "vector name error" in text:
            raise ValueError(text) from error
        if "No space left" in text or "os error 28" in text:
            raise IndexUnavailableError(f"the disk is full: free some space for {path} ({text})") from error
        raise IndexUnavailableError(f"the index at {path} can't be used: {text}. If this persists, build the version again") from error


def require_space(path: Path, more: int = 0) -> None:
    """Refuse a write (of `more` bytes than a batch makes) while refusing is possible: the engine maps its files into memory, and a full
    disk would kill the process (SIGBUS)."""
    free, needed = shutil.disk_usage(path).free, _RESERVE + more
    if free < needed:
        raise IndexUnavailableError(
            f"the disk is nearly full: {free >> 20} MB are free for {path}, a write needs {needed >> 20} MB. Free some space"
        )


def size(path: Path) -> int:
    """Bytes that a folder takes on the disk."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def locked_error(path: Path) -> IndexLockedError:
    return IndexLockedError(
        f"another process has the index at {path} open, and the embedded engine allows one: "
        "ask that server over HTTP, or stop it first (or use the engine 'qdrant')"
    )


def take_lock(path: Path, name: str = "LOCK", *, wait: bool = False) -> int:
    """The lock `name` of a folder. `LOCK` is a version's own: the engine's log lock says neither whose it is nor covers a build before
    its shard exists."""
    lock = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise locked_error(path) from None
        raise
    return lock


def is_locked(path: Path) -> bool:
    """Whether somebody holds this lock file. A look takes it for a moment, so whoever wants it then has to try once more."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextmanager
def hold_lock(path: Path, name: str = "LOCK", *, wait: bool = False) -> Iterator[None]:
    lock = take_lock(path, name, wait=wait)
    try:
        yield
    finally:
        os.close(lock)


def empty(path: Path) -> None:
    for left in path.iterdir():
        if left.name != "LOCK":
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def read(path: Path) -> bytes | None:
    """The file's content; None where there is no such file."""
    with explain(path):
        return path.read_bytes() if path.exists() else None


def write(path: Path, text: str) -> None:
    """Replace a file in one step that survives a power cut."""
    write_atomically(path, text, fsync=True)
