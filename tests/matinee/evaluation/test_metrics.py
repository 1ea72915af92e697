"""`matinee.evaluation.metrics`: the same figures as ir-measures (trec_eval) on random runs, and intervals that repeat themselves."""

import random

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Qrel, R, ScoredDoc, nDCG

from matinee.evaluation import metrics
from matinee.evaluation.metrics import Measure

THEIRS = {"recall": R, "ndcg": nDCG, "mrr": RR}


def random_run(rng: random.Random) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Runs that end early, find nothing or find more than k, for queries with few and with many relevant items."""
    items = [f"i{n}" for n in range(60)]
    queries = [f"q{n}" for n in range(rng.randint(1, 12))]
    runs = {query: rng.sample(items, rng.choice([1, 3, 10, 40])) for query in queries}
    return runs, {query: set(rng.sample(items, rng.choice([1, 2, 7, 25]))) for query in queries}


@pytest.mark.parametrize("measure", ["recall", "ndcg", "mrr"])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_the_measures_agree_with_ir_measures(measure: Measure, k: int) -> None:
    rng = random.Random(f"{measure} {k}")
    for _ in range(30):
        runs, relevant = random_run(rng)
        qrels = [Qrel(query, item, 1) for query, items in relevant.items() for item in items]
        scored = [ScoredDoc(query, item, -rank) for query, items in runs.items() for rank, item in enumerate(items)]
        theirs = {each.query_id: each.value for each in ir_measures.iter_calc([THEIRS[measure] @ k], qrels, scored)}
        assert metrics.per_query(runs, relevant, measure, k) == pytest.approx(theirs, abs=1e-9)


def test_a_query_without_a_run_counts_as_an_empty_answer_and_one_without_labels_not_at_all() -> None:
    assert metrics.per_query({"b": ["x"]}, {"a": {"x"}, "b": {"x"}, "c": set()}, "recall") == {"a": 0.0, "b": 1.0}


def test_an_interval_is_the_percentile_bootstrap_and_the_same_each_time() -> None:
    data = np.random.default_rng(3).random(200)
    means = data[np.random.default_rng(0).integers(0, 200, (2000, 200))].mean(axis=1)
    first = metrics.interval(data)
    assert first == metrics.interval(data)
    assert (first.low, first.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-12)


def test_an_interval_of_one_value_or_of_equal_ones_has_no_width() -> None:
    assert metrics.interval([0.25]) == metrics.interval([0.25] * 3) == metrics.Interval(0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="nothing to measure"):
        metrics.interval([])


def test_a_paired_difference_is_over_the_queries_that_both_have() -> None:
    a = {str(i): 0.5 + (i % 3) / 10 for i in range(100)}
    b = {query: value - 0.2 for query, value in a.items()} | {"other": 1.0}
    difference = metrics.paired_difference(a, b)
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.2, 0.2, 0.2))
