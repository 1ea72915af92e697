"""The worker that embeds: texts -> vectors, of the items of an ingest or of anything else. Reads no catalogue, and knows no index version.

Settings come without secrets, since Ray keeps what starts an actor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from matinee.files import keep_private
from matinee.index.isolation import Isolate, isolate
from matinee.index.points import Batch, encode_usable
from matinee.index.vector_cache import CachedEncoder, VectorCache, vectors_path
from matinee.models.embedder import Embedder
from matinee.models.types import Encoder, Kind
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from train.ingesting import columns
from train.ingesting.attempts import Attempts
from train.ingesting.kept import RemoteValues


@dataclass(frozen=True)
class EncoderInfo:
    """What an index and a cache have to know of an encoder. All workers of a run have the same one."""

    fingerprint: str
    dimension: int
    model_id: str
    precision: str


class Embedding:
    """Texts -> vectors, each text once: what was encoded is given to the cache before the next batch begins."""

    def __init__(
        self,
        settings: Settings,
        threads: int,
        kept: str | None,
        known: EncoderInfo | None = None,
        attempts: tuple[str, Path] | None = None,
    ) -> None:
        keep_private()
        embedder = load_embedder(settings, threads, None if known is None else known.precision)
        self._info = EncoderInfo(embedder.fingerprint, embedder.dimension, embedder.model_id, embedder.precision)
        self._recipe = settings.index.recipe
        self._encoder: Encoder = embedder
        self._isolate: Isolate = isolate if attempts is None else Attempts(RemoteValues(*attempts), "embed").isolate
        if kept is not None:
            path = vectors_path(settings, self._info.fingerprint, self._info.precision)
            self._encoder = CachedEncoder(embedder, VectorCache(RemoteValues(kept, path)))

    def __call__(self, table: pa.Table) -> pa.Table:
        encoded = known = 0

        def encode(batch: Batch) -> Matrix:
            nonlocal encoded, known
            flat, new, kept = self.encode(batch.texts.flat)
            encoded, known = encoded + new, known + kept
            return batch.texts.join(flat)

        rows = columns.usable(table)
        places, made, reasons = encode_usable(columns.batch_of(table, self._recipe), encode, self._recipe, self._isolate)
        table = columns.with_reasons(table, {rows[place]: reason for place, reason in reasons.items()})
        vectors = np.zeros((len(table), self._info.dimension), np.float32)
        if places:
            vectors[[rows[place] for place in places]] = made
        return columns.with_vectors(table, vectors, encoded=encoded, known=known)

    def encode(self, texts: Sequence[str], kind: Kind = "document") -> tuple[Matrix, int, int]:
        """The vectors, how many texts were encoded for them, and how many were known."""
        cached = self._encoder if isinstance(self._encoder, CachedEncoder) else None
        before = (0, 0) if cached is None else (cached.encoded, cached.known)
        vectors = self._encoder.encode(texts, kind=kind)
        if cached is None:
            return vectors, len(texts), 0
        return vectors, cached.encoded - before[0], cached.known - before[1]

    def info(self) -> EncoderInfo:
        return self._info


def load_embedder(settings: Settings, threads: int, precision: str | None) -> Embedder:
    """The encoder; at `precision`, which is what the run's first worker chose."""

    def load(chosen: str) -> Embedder:
        alone = settings.embedder.model_copy(update={"threads": threads, "precision": chosen})
        return Embedder.load(alone, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")

    embedder = load(settings.embedder.precision)
    # On another kind of machine, `auto` may choose otherwise.
    return embedder if precision in (None, embedder.precision) else load(precision)
