"""Files: digests, replacing a file in one step, and JSON in lines."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_private(folder: Path, *, even_if_there: bool) -> None:
    """Create `folder` for this user alone. One that is there keeps its mode, unless `even_if_there`. What can't be done is left.

    If the folder can't be made or changed, this raises nothing: the later write into it fails with its own error.
    """
    with contextlib.suppress(OSError):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        elif even_if_there and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)


def keep_private() -> None:
    """From now on, what this process and its children write is for this user alone: mode 0600 and 0700."""
    os.umask(0o077)


def make_readable(folder: Path) -> None:
    """Let every user read what lies in `folder`, who may reach it: models, which a folder of several users shares."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int | None = None, fsync: bool = False) -> Iterator[BinaryIO]:
    """A file that becomes `path` in one step at the end of the `with`; an error leaves the file of before.

    With `fsync` this survives a power cut: the bytes are on the disk first, then the name, then the folder.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    if mode is not None:
        aside.touch(mode)
    with aside.open("wb") as file:
        yield file
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)
    if fsync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: Path, text: str, *, mode: int | None = None, fsync: bool = False) -> None:
    with replacing(path, mode=mode, fsync=fsync) as file:
        file.write(text.encode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One object a line, in the order given."""
    with path.open("wb") as out:
        out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Raises `OSError`, and `orjson.JSONDecodeError` for a line that is not JSON."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def user_path(text: str | Path) -> Path:
    """A path as a user writes it: `~` at its beginning is the home folder, but not where a file has that very name (`~films.csv`)."""
    path = Path(text)
    if not str(path).startswith("~") or path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        # No such user, or a home folder that nobody knows.
        return path
