"""Ranking quality: Recall@k, NDCG@k, MRR@k, and bootstrap intervals, on plain lists of ids. Knows no models and does no I/O.

Relevance is binary, as in BEIR (Thakur et al., 2021): NDCG's gain is 1 for a relevant item, discounted by log2(rank + 1)
(Järvelin and Kekäläinen, 2002); recall divides by the number of relevant items, however many more than k there are.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Measure = Literal["recall", "ndcg", "mrr"]
_SAMPLES = 2000


def recall_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """The part of the relevant items that is among the first `k`."""
    return len(set(ranked[:k]) & set(relevant)) / len(relevant)


def ndcg_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Discounted gain of the first `k`, as a part of the best possible."""
    gain = sum(1 / math.log2(rank + 2) for rank, id in enumerate(ranked[:k]) if id in relevant)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))


def mrr_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """1 / rank of the first relevant item, 0 where none is among the first `k`."""
    return next((1 / (rank + 1) for rank, id in enumerate(ranked[:k]) if id in relevant), 0.0)


_MEASURES = {"recall": recall_at, "ndcg": ndcg_at, "mrr": mrr_at}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval over queries."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def per_query(
    runs: Mapping[str, Sequence[str]], relevant: Mapping[str, Collection[str]], measure: Measure, k: int = 10
) -> dict[str, float]:
    """The measure of each query that has relevant items; a query without a run counts as an empty answer."""
    return {query: _MEASURES[measure](runs.get(query, ()), ids, k) for query, ids in relevant.items() if ids}


def interval(values: Collection[float]) -> Interval:
    """Percentile bootstrap of the mean. Raises `ValueError` when there is nothing to average."""
    # scipy.stats takes a second to import, and the probe needs only the measures above.
    from scipy.stats import bootstrap

    data = np.array(list(values), float)
    if not len(data):
        raise ValueError("no queries with relevant items: nothing to measure")
    mean = float(data.mean())
    if len(data) == 1:
        return Interval(mean, mean, mean)
    interval = bootstrap((data,), np.mean, n_resamples=_SAMPLES, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def paired_difference(a: Mapping[str, float], b: Mapping[str, float]) -> Interval:
    """`a` minus `b` over the queries that both have: an interval without 0 is a difference that the queries agree on."""
    return interval([a[query] - b[query] for query in a if query in b])
