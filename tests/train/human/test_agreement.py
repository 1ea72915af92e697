"""Kappa against published and worked examples."""

import pytest

from train.human.agreement import agreement, cohen, fleiss

# Fleiss (1971), table 1: 30 patients, 6 psychiatrists; depression, personality disorder, schizophrenia, neurosis, other.
FLEISS_1971 = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    counts = [[int(count) for count in row] for row in FLEISS_1971.split()]
    assert [sum(column) for column in zip(*counts, strict=True)] == [26, 26, 30, 55, 43]
    assert fleiss(counts) == pytest.approx(0.430, abs=5e-4)
    assert fleiss([[3, 0], [3, 0]]) is None
    assert fleiss([[1, 0], [0, 1]]) is None
    assert fleiss([[2, 0], [0, 2]]) == 1


def test_cohens_kappa_counts_agreement_beyond_chance() -> None:
    # 50 proposals: both yes 20, only the first 5, only the second 10, both no 15; chance explains half.
    first, second = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen(first, second, "yn") == pytest.approx(0.4)
    assert cohen("3333", "3333", "12345") is None
    near, far = cohen("1245", "1254", "12345", weighted=True), cohen("1245", "5241", "12345", weighted=True)
    assert near is not None
    assert far is not None
    assert near > 0.8 > far
    assert cohen("1245", "1254", "12345") == cohen("1245", "5241", "12345")


def test_agreement_is_of_each_pair_and_of_all() -> None:
    told = {"ann": {"x": "1", "y": "5"}, "bob": {"y": "5", "x": "1"}, "cid": {"x": "5", "y": "1"}}
    found = agreement(told, "12345", ordered=True)
    assert [(pair.raters, pair.kappa) for pair in found.pairs] == [(("ann", "bob"), 1), (("ann", "cid"), -1), (("bob", "cid"), -1)]
    assert found.mean_kappa == pytest.approx(-1 / 3)
    assert found.fleiss == pytest.approx(-1 / 3)
    assert agreement({"ann": {"x": "1"}}, "12345", ordered=True).fleiss is None
