"""Vectors kept on disk as they are made, by text, so that a build that was stopped goes on where it was.

One file, appended to: a row that a kill cut off is dropped. Knows neither models nor items; whoever opens it names the encoder in its path.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_KEY_BYTES = 16


class VectorCache:
    """Text -> vector, for one encoder of `dimension`; to be entered with `with`. Not for two processes at once."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._path = path
        self._row = np.dtype([("key", f"V{_KEY_BYTES}"), ("vector", "<f4", (dimension,))])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole = path.stat().st_size // self._row.itemsize
        os.truncate(path, whole * self._row.itemsize)
        self._places = {row["key"].tobytes(): place for place, row in enumerate(np.fromfile(path, self._row))}

    def __enter__(self) -> Self:
        self._file = self._path.open("r+b")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Removed at a good end, kept for the next run otherwise."""
        self._file.close()
        if error is None:
            self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, text: str) -> bool:
        return _key(text) in self._places

    def get(self, texts: Sequence[str]) -> Matrix:
        """Raises `KeyError` for a text that is not there."""
        found = np.empty((len(texts), *self._row["vector"].shape), np.float32)
        for i, text in enumerate(texts):
            self._file.seek(self._places[_key(text)] * self._row.itemsize)
            found[i] = np.frombuffer(self._file.read(self._row.itemsize), self._row)["vector"][0]
        return found

    def add(self, texts: Sequence[str], vectors: np.ndarray[Any, Any]) -> None:
        rows = np.zeros(len(texts), self._row)
        for i, text in enumerate(texts):
            rows["key"][i] = np.void(_key(text))
        rows["vector"] = vectors
        self._file.seek(0, os.SEEK_END)
        self._file.write(rows.tobytes())
        self._file.flush()
        for text in texts:
            self._places[_key(text)] = len(self._places)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()
