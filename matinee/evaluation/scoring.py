"""Exact retrieval over a few ten thousand texts in memory: BM25, TF-IDF, cosine, and Qdrant's fusions of them, as matrices of scores.

What evaluation and the mining of negatives need: every score of every query, without an index. The formulas are the engine's own (a test
holds them together with it). Does not serve: that is `index`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from matinee.models.bm25 import Bm25Encoder
from matinee.models.types import Kind
from matinee.vectors import Matrix, Sparse

Encode = Callable[[Sequence[str], Kind], Matrix]
Scores = np.ndarray[tuple[int, int], np.dtype[np.float32]]

PREFETCH = 200


class Bm25Scorer:
    """Qdrant's BM25: its encoder, with the engine's IDF over these documents. `language`: `embedder.language`, as the index has it."""

    def __init__(self, documents: Sequence[str], language: str | None) -> None:
        self._encoder = Bm25Encoder(language)
        self._columns: dict[int, int] = {}
        terms = _rows([self._encoder.document(text) for text in documents], self._columns, grow=True)
        count = np.asarray((terms > 0).sum(axis=0)).ravel()
        idf = np.log1p((len(documents) - count + 0.5) / (count + 0.5)).astype(np.float32)
        self._documents = (terms @ sp.diags(idf)).T.tocsr()

    def __call__(self, queries: Sequence[str]) -> Scores:
        terms = _rows([self._encoder.query(text) for text in queries], self._columns, grow=False)
        scores: Scores = (terms @ self._documents).toarray().astype(np.float32)
        return scores


class TfidfScorer:
    """Cosine of TF-IDF vectors (words and pairs of words, sublinear counts). English has stop words, other languages have none."""

    def __init__(self, documents: Sequence[str], language: str | None) -> None:
        stop_words = "english" if language == "english" else None
        self._vectorizer = TfidfVectorizer(stop_words=stop_words, sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
        self._documents = self._vectorizer.fit_transform(documents).T.tocsr()

    def __call__(self, queries: Sequence[str]) -> Scores:
        scores: Scores = (self._vectorizer.transform(queries) @ self._documents).toarray()
        return scores


def cosine(queries: Matrix, documents: Matrix) -> Scores:
    """The cosine of each query to each document; both are unit vectors."""
    return queries @ documents.T


def top(scores: Scores, k: int) -> np.ndarray[Any, Any]:
    """The columns of the k best of each row, best first; equal scores by column."""
    k = min(k, scores.shape[1])
    rough = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    rough.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, rough, axis=1), axis=1, kind="stable")
    return np.take_along_axis(rough, order, axis=1)


def rrf(lists: Sequence[Scores], weights: Sequence[float], *, k: int = 10, prefetch: int = PREFETCH) -> Scores:
    """Qdrant's weighted reciprocal rank fusion of each one's best `prefetch`: a rank counts 1 / ((rank + 1) / weight + k - 1)."""
    fused = np.zeros(lists[0].shape, np.float32)
    for scores, weight in zip(lists, weights, strict=True):
        best = top(scores, prefetch)
        ranks = np.arange(best.shape[1], dtype=np.float32)
        gain = 1 / ((ranks + 1) / weight + k - 1)
        present = np.take_along_axis(scores, best, axis=1) > _absent_score(scores)
        fused[np.arange(len(best))[:, None], best] += np.where(present, gain, 0)
    return fused


def dbsf(lists: Sequence[Scores], *, prefetch: int = PREFETCH) -> Scores:
    """Qdrant's distribution-based fusion: each list's best scores, put between their mean plus and minus three deviations, and added."""
    fused = np.zeros(lists[0].shape, np.float32)
    for scores in lists:
        best = top(scores, prefetch)
        values = np.take_along_axis(scores, best, axis=1)
        for row, (columns, row_values) in enumerate(zip(best, values, strict=True)):
            present = row_values > _absent_score(scores)
            if not present.any():
                continue
            listed = row_values[present]
            spread = float(listed.std(ddof=1)) if len(listed) > 1 else 0.0
            low = float(listed.mean()) - 3 * spread
            fused[row, columns[present]] += (listed - low) / (6 * spread) if spread > 0 else 0.5
    return fused


def linear(lists: Sequence[Scores], weights: Sequence[float], *, prefetch: int = PREFETCH) -> Scores:
    """The engines' weighted sum of cosine and BM25, in this order, over the best `prefetch` of each; BM25 counts where it is among them."""
    cosine, words = lists
    in_words = _among_best(words, prefetch) & (words > 0)
    fused = weights[0] * cosine + weights[1] * np.where(in_words, words, 0)
    candidates: Scores = np.where(in_words | _among_best(cosine, prefetch), fused, -np.inf).astype(np.float32)
    return candidates


def fuse(lists: Sequence[Scores], fusion: str, *, k: int, weights: Sequence[float], prefetch: int = PREFETCH) -> Scores:
    """Cosine and BM25 as `search.fusion` has it; DBSF has no weights."""
    match fusion:
        case "linear":
            return linear(lists, weights, prefetch=prefetch)
        case "rrf":
            return rrf(lists, weights, k=k, prefetch=prefetch)
    return dbsf(lists, prefetch=prefetch)


def _among_best(scores: Scores, k: int) -> np.ndarray[Any, Any]:
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, top(scores, k), True, axis=1)
    return best


def _absent_score(scores: Scores) -> float:
    """A document without any term of the query is not in a sparse list at all; every vector is in a dense one."""
    return 0.0 if (scores >= 0).all() else -np.inf


def _rows(vectors: Sequence[Sparse], columns: dict[int, int], *, grow: bool) -> Any:
    data: list[float] = []
    indices: list[int] = []
    ends = [0]
    for vector in vectors:
        for index, value in zip(vector.indices, vector.values, strict=True):
            column = columns.setdefault(index, len(columns)) if grow else columns.get(index)
            if column is not None:
                indices.append(column)
                data.append(value)
        ends.append(len(indices))
    return sp.csr_matrix((data, indices, ends), shape=(len(vectors), max(1, len(columns))), dtype=np.float32)
