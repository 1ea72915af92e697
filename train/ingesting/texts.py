"""Texts -> vectors on a Ray, as hard negatives are mined with: the workers that embed for an ingest, as a stream of Ray Data.

Nothing is kept: the vectors are of one run. Imports Ray: only after `matinee.settings.local_ray.secure`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from matinee.index.points import BATCH
from matinee.models.types import Kind
from matinee.settings.load import without_secrets
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from train.ingesting import columns, streams
from train.ingesting.embedding import Embedding, EncoderInfo
from train.ingesting.plan import Pool

_ROW, _TEXT, _KIND = "row", "text", "kind"


class TextEmbedding(Embedding):
    """Texts of one kind -> vectors."""

    def __call__(self, table: pa.Table) -> pa.Table:
        vectors, encoded, known = self.encode(table[_TEXT].to_pylist(), table[_KIND][0].as_py())
        return columns.with_vectors(table.select([_ROW]), vectors, encoded=encoded, known=known)


class ClusterTexts:
    """The settings' encoder on the Ray that this process has joined (`matinee.evaluation.scoring.Encode`).

    A worker that is killed is replaced, and its batch is encoded again.
    """

    def __init__(self, settings: Settings, pool: Pool) -> None:
        # Where this process finds them, as other processes write it.
        shared = without_secrets(settings.model_copy(update={"home": settings.home_dir}))
        self._pool = pool
        self._arguments = {"settings": shared, "threads": pool.threads, "kept": None}
        self._info: EncoderInfo = streams.ask_once(TextEmbedding, pool, self._arguments, lambda worker: worker.info.remote())

    def __call__(self, texts: Sequence[str], kind: Kind) -> Matrix:
        """float32[texts, d]"""
        vectors = np.empty((len(texts), self._info.dimension), np.float32)
        if not texts:
            return vectors
        with streams.context(), streams.explain_errors():
            stream = streams.source("Texts", partial(_tables, list(texts), kind))
            arguments = self._arguments | {"known": self._info}
            stream = streams.stage(stream, TextEmbedding, self._pool.size, BATCH, arguments, **streams.resources(self._pool))
            for table in streams.tables(stream):
                vectors[table[_ROW].to_numpy()] = columns.vectors_of(table)
        return vectors


def _tables(texts: Sequence[str], kind: Kind) -> Iterator[pa.Table]:
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        rows = pa.array(range(start, start + len(part)), pa.int64())
        yield pa.table({_ROW: rows, _TEXT: pa.array(part, pa.string()), _KIND: pa.array([kind] * len(part), pa.string())})
