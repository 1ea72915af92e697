"""Vectors kept on disk as they are made, by text, so that a build that was stopped goes on where it was.

Does not know models or items; whoever opens it names the encoder in its path.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from matinee.disk_cache import DiskCache
from matinee.vectors import Matrix


class VectorCache:
    """Text -> vector, for one encoder of `dimension`. To be closed, or entered with `with` where it serves one run alone."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._cache = DiskCache(path)
        self._dimension = dimension

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Removed at a good end, kept for the next run otherwise."""
        if error is None:
            self._cache.remove()
        else:
            self.close()

    def close(self) -> None:
        """Its file stays."""
        self._cache.close()

    def __len__(self) -> int:
        return len(self._cache)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts that are not there yet, each once."""
        there = self._cache.get(map(_key, texts))
        return [text for text in dict.fromkeys(texts) if _key(text) not in there]

    def get(self, texts: Sequence[str]) -> Matrix:
        """Raises `KeyError` for a text that is not there."""
        rows = self._cache.get(map(_key, texts))
        vectors = np.empty((len(texts), self._dimension), np.float32)
        for i, text in enumerate(texts):
            vectors[i] = np.frombuffer(rows[_key(text)], "<f4")
        return vectors

    def add(self, texts: Sequence[str], vectors: np.ndarray[Any, Any]) -> None:
        rows = np.asarray(vectors, "<f4")
        self._cache.put({_key(text): row.tobytes() for text, row in zip(texts, rows, strict=True)})


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
