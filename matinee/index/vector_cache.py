"""Vectors kept on disk by their text: an ingest encodes only texts that are new or changed, also after a run that was stopped.

Does not know items, and does not choose what is embedded.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from matinee.disk_cache import DiskCache, KeptValues
from matinee.models.types import Encoder, Kind
from matinee.settings.tree import Settings
from matinee.vectors import Matrix, Vector

log = logging.getLogger(__name__)

SplitIntoBatches = Callable[[list[str]], Sequence[list[str]]]


class VectorCache:
    """Text -> vector, for one encoder. To be closed."""

    def __init__(self, values: KeptValues) -> None:
        self._cache = values

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises `OSError` if `path` can't be written or is not a file of this cache."""
        return cls(DiskCache(path))

    def close(self) -> None:
        """Close the cache. Its file stays."""
        self._cache.close()

    def find(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those texts that are there, float32[d] each."""
        keys = {text: _key(text) for text in texts}
        rows = self._cache.get(keys.values())
        return {text: np.frombuffer(rows[key], "<f4") for text, key in keys.items() if key in rows}

    def add(self, texts: Sequence[str], vectors: Matrix) -> None:
        rows = np.asarray(vectors, "<f4")
        self._cache.put({_key(text): row.tobytes() for text, row in zip(texts, rows, strict=True)})

    def use(self, texts: Sequence[str]) -> None:
        """Note that this run needs the vectors of `texts`, for `drop_unused`."""
        self._cache.use(map(_key, texts))

    def drop_unused(self) -> None:
        """Delete the vectors that this run did not need."""
        self._cache.drop_unused()


@runtime_checkable
class CountingEncoder(Protocol):
    """An encoder that counts the texts that were encoded in this run, and those whose vectors were known."""

    encoded: int
    known: int


class CachedEncoder:
    """An encoder of documents that encodes a text once: what it made is in `cache`, also for later runs.

    `split` takes the missing texts apart; what a part gives is kept at once. `encoded` and `known` count texts.
    """

    def __init__(self, encoder: Encoder, cache: VectorCache, split: SplitIntoBatches = lambda texts: [texts]) -> None:
        self._encoder, self._cache, self._split = encoder, cache, split
        self.fingerprint, self.dimension, self.model_id = encoder.fingerprint, encoder.dimension, encoder.model_id
        self.encoded = self.known = 0

    def encode(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        cached = self._cache.find(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in cached]
        for part in self._split(missing) if missing else ():
            vectors = self._encoder.encode(part, kind=kind)
            self._cache.add(part, vectors)
            cached |= zip(part, vectors, strict=True)
        self._cache.use(texts)
        self.encoded += len(missing)
        self.known += len(texts) - len(missing)
        return np.array([cached[text] for text in texts], np.float32).reshape(len(texts), self.dimension)


@contextmanager
def cache_vectors(
    encoder: Encoder, precision: str, settings: Settings, split: SplitIntoBatches = lambda texts: [texts]
) -> Iterator[Encoder]:
    """`encoder`, with the vectors of earlier ingests of the catalogue; at a good end only those of this ingest are kept for the next.

    The fingerprint does not tell precisions apart, whose vectors an index may mix: here another one encodes anew.
    `encoder` itself where `index.keep_vectors` is off, or where no file can be written in the home folder.
    """
    if not settings.index.keep_vectors:
        yield encoder
        return
    path = vectors_path(settings, encoder.fingerprint, precision)
    try:
        cache = VectorCache.open(path)
    except OSError as error:
        log.warning("no vectors are kept for the next ingest: %s", error)
        yield encoder
        return
    with closing(cache):
        yield CachedEncoder(encoder, cache, split)
        cache.drop_unused()
    drop_other_encoders(settings, path)


def vectors_path(settings: Settings, fingerprint: str, precision: str) -> Path:
    """The file of the vectors that an encoder made of a catalogue."""
    made_by = _key(f"{fingerprint} {precision}")[:16]
    return settings.home_dir / "ingest" / f"{settings.catalogue}-{made_by}.sqlite"


def drop_other_encoders(settings: Settings, path: Path) -> None:
    """Delete the vectors that other encoders than that of `path` made of the catalogue."""
    for of_another_encoder in set(path.parent.glob(f"{settings.catalogue}-{'?' * 16}.sqlite")) - {path}:
        of_another_encoder.unlink(missing_ok=True)


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
