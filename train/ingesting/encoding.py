"""Texts -> vectors by processes of a cluster, as a stream of Ray Data: for a job that wants no index, as the mining of hard negatives.

Imports Ray: only after `matinee.settings.local_ray.secure`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from matinee.files import keep_private
from matinee.models.embedder import Embedder
from matinee.models.types import Kind
from matinee.settings.load import without_secrets
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from train.ingesting import columns, streams
from train.ingesting.plan import Pool

BATCH = 256
_PLACE, _TEXT, _KIND = "place", "text", "kind"


def load_embedder(settings: Settings, threads: int, precision: str | None) -> Embedder:
    """The encoder; at `precision`, which is what the run's first worker chose."""

    def load(chosen: str) -> Embedder:
        alone = settings.embedder.model_copy(update={"threads": threads, "precision": chosen})
        return Embedder.load(alone, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")

    embedder = load(settings.embedder.precision)
    # On another kind of machine, `auto` may choose otherwise.
    return embedder if precision in (None, embedder.precision) else load(precision)


class TextEncoder:
    """Texts, each with its kind and its place -> vectors with the places."""

    def __init__(self, settings: Settings, threads: int) -> None:
        keep_private()
        self._embedder = load_embedder(settings, threads, None)

    def __call__(self, table: pa.Table) -> pa.Table:
        kinds = np.array(table[_KIND].to_pylist())
        texts = table[_TEXT].to_pylist()
        vectors = np.empty((len(texts), self._embedder.dimension), np.float32)
        kind: Kind
        for kind in ("document", "query"):
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                vectors[rows] = self._embedder.encode([texts[row] for row in rows], kind=kind)
        return columns.with_vectors(table.select([_PLACE]), vectors, encoded=len(texts), known=0)


class EncodedTexts:
    """The vectors of texts that were encoded by a pool of processes, each text once (`matinee.evaluation.scoring.Encode`).

    A batch whose process is killed is encoded again.
    """

    def __init__(self, settings: Settings, pool: Pool, documents: Sequence[str], queries: Sequence[str]) -> None:
        asked: list[tuple[Kind, str]] = [*(("document", text) for text in documents), *(("query", text) for text in queries)]
        self._places = {one: place for place, one in enumerate(dict.fromkeys(asked))}
        # Where this process finds the models, as other processes write it.
        shared = without_secrets(settings.model_copy(update={"home": settings.home_dir}))
        self._vectors = self._encode(shared, pool)

    def __call__(self, texts: Sequence[str], kind: Kind) -> Matrix:
        vectors: Matrix = self._vectors[[self._places[kind, text] for text in texts]]
        return vectors

    def _encode(self, settings: Settings, pool: Pool) -> Matrix:
        arguments = {"settings": settings, "threads": pool.threads}
        vectors: Matrix = np.empty((len(self._places), 0), np.float32)
        with streams.context(), streams.explain_errors():
            stream = streams.source("Texts", partial(_tables, list(self._places)))
            stream = streams.stage(stream, TextEncoder, pool.size, BATCH, arguments, **streams.resources(pool))
            for table in streams.tables(stream):
                made = columns.vectors_of(table)
                if not vectors.shape[1]:
                    vectors = np.empty((len(self._places), made.shape[1]), np.float32)
                vectors[table[_PLACE].to_pylist()] = made
        return vectors


def _tables(texts: Sequence[tuple[Kind, str]]) -> Iterator[pa.Table]:
    """In tables of a batch each, whose rows have their place in the whole."""
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        yield pa.table(
            {
                _PLACE: pa.array(range(start, start + len(part)), pa.int64()),
                _KIND: pa.array([kind for kind, _ in part], pa.string()),
                _TEXT: pa.array([text for _, text in part], pa.string()),
            }
        )
