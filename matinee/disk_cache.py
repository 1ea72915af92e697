"""Computed values kept on disk by their key, so that no run computes them again: one SQLite file.

Each `put` is one transaction, so a kill loses the `put` under way and nothing before it. Several processes may use one file. Holds bytes
and knows nothing of what they mean; never unpickles.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

_BUSY_S = 60.0
_MAX_PARAMETERS = 500


class KeptValues(Protocol):
    """What a cache offers, wherever it lies: a `DiskCache` of this machine, or one that another machine is asked for."""

    def get(self, keys: Iterable[str]) -> dict[str, bytes]: ...
    def put(self, values: Mapping[str, bytes]) -> None: ...
    def use(self, keys: Iterable[str]) -> None: ...
    def drop_unused(self) -> None: ...
    def close(self) -> None: ...


class DiskCache:
    """Key -> bytes. May be used from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where `path` can't be written or is no such file."""
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            try:
                path.touch(mode=0o600)
                self._db = opened.enter_context(closing(sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)))
                self._db.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            except (sqlite3.Error, OSError) as error:
                raise OSError(f"cannot open the cache {path}: {error}; delete the file to start anew") from error
            opened.pop_all()

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values of those keys that are there."""
        distinct, values = list(dict.fromkeys(keys)), dict[str, bytes]()
        with self._lock:
            for start in range(0, len(distinct), _MAX_PARAMETERS):
                part = distinct[start : start + _MAX_PARAMETERS]
                marks = ", ".join("?" * len(part))
                values.update(self._db.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", part))  # noqa: S608  marks only
        return values

    def put(self, values: Mapping[str, bytes]) -> None:
        """Write all of them, or none. Raises `OSError` where there is no room."""
        try:
            with self._lock, self._db:
                self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", values.items())
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot write the cache {self._path}: {error}") from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def use(self, keys: Iterable[str]) -> None:
        """Note that a run has used these keys, for `drop_unused`."""
        with self._lock:
            # Beside the file and of this connection only: as many keys as a catalogue has items may not fit into memory.
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS used (key TEXT PRIMARY KEY)")
            self._db.executemany("INSERT OR IGNORE INTO temp.used VALUES (?)", ((key,) for key in keys))
            self._db.commit()

    def drop_unused(self) -> None:
        """Delete whatever was not noted by `use`."""
        self.use(())
        with self._lock, self._db:
            self._db.execute("DELETE FROM entries WHERE key NOT IN (SELECT key FROM temp.used)")
