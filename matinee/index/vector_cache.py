"""Vectors kept on disk by their text: an ingest encodes only texts that are new or changed, also after a run that was stopped.

Does not know items, and does not choose what is embedded.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matinee.disk_cache import DiskCache
from matinee.models.types import Encoder, Kind
from matinee.settings.tree import Settings
from matinee.vectors import Matrix

log = logging.getLogger(__name__)

Split = Callable[[list[str]], Sequence[list[str]]]


class VectorCache:
    """Text -> vector, for one encoder of `dimension`. To be closed."""

    def __init__(self, path: Path, dimension: int) -> None:
        """Raises `OSError` where `path` can't be written or is no such file."""
        self._cache = DiskCache(path)
        self._dimension = dimension

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

    def use(self, texts: Sequence[str]) -> None:
        """Note that this run needs the vectors of `texts`, for `drop_unused`."""
        self._cache.use(map(_key, texts))

    def drop_unused(self) -> None:
        """Delete the vectors that this run did not need."""
        self._cache.drop_unused()


class CachedEncoder:
    """An encoder of documents that encodes a text once: what it made is in `cache`, also for later runs.

    `split` takes the missing texts apart; what a part gives is kept at once. `encoded` and `known` count texts.
    """

    def __init__(self, encoder: Encoder, cache: VectorCache, split: Split = lambda texts: [texts]) -> None:
        self._encoder, self._cache, self._split = encoder, cache, split
        self.fingerprint, self.dimension, self.model_id = encoder.fingerprint, encoder.dimension, encoder.model_id
        self.encoded = self.known = 0

    def encode(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        missing = self._cache.missing(texts)
        if missing:
            for part in self._split(missing):
                self._cache.add(part, self._encoder.encode(part, kind=kind))
        self._cache.use(texts)
        self.encoded += len(missing)
        self.known += len(texts) - len(missing)
        return self._cache.get(texts)


@contextmanager
def cached(encoder: Encoder, settings: Settings, split: Split = lambda texts: [texts]) -> Iterator[Encoder]:
    """`encoder`, with the vectors of earlier ingests of the catalogue; at a good end only those of this ingest are kept for the next.

    `encoder` itself where `index.keep_vectors` is off, or where no file can be written in the home folder.
    """
    if not settings.index.keep_vectors:
        yield encoder
        return
    path = settings.home_dir / "ingest" / f"{settings.catalogue}-{encoder.fingerprint[:16]}.sqlite"
    try:
        cache = VectorCache(path, encoder.dimension)
    except OSError as error:
        log.warning("no vectors are kept for the next ingest: %s", error)
        yield encoder
        return
    with closing(cache):
        yield CachedEncoder(encoder, cache, split)
        cache.drop_unused()
    for of_another_encoder in set(path.parent.glob(f"{settings.catalogue}-{'?' * 16}.sqlite")) - {path}:
        of_another_encoder.unlink(missing_ok=True)


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
