"""How far raters agree: Cohen's kappa of each pair of them (plain and quadratically weighted) and Fleiss' kappa of all together.

`None` where a kappa is not defined: when nobody ever used a second value, chance alone explains everything. Does not know what was rated.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import cohen_kappa_score

# Rater -> subject -> value; every rater has judged the same subjects.
Judgments = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class RaterPair:
    """Two raters' agreement. `weighted` counts a near miss (4 for 5) as less of a disagreement; `None` where values have no order."""

    raters: tuple[str, str]
    kappa: float | None
    weighted: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """All raters' agreement on one question. The means leave out pairs without a kappa."""

    raters: int
    subjects: int
    pairs: tuple[RaterPair, ...]
    mean_kappa: float | None
    mean_weighted: float | None
    fleiss: float | None


def agreement(judgments: Judgments, values: Sequence[str], *, ordered: bool) -> Agreement:
    """Of at least one rater; `values` are all that could be said, in their order where they have one."""
    names = sorted(judgments)
    subjects = sorted(judgments[names[0]])
    answers = {name: [judgments[name][subject] for subject in subjects] for name in names}
    pairs = tuple(
        RaterPair((a, b), cohen(answers[a], answers[b], values), cohen(answers[a], answers[b], values, weighted=True) if ordered else None)
        for a, b in combinations(names, 2)
    )
    counts = [[[answers[name][row] for name in names].count(value) for value in values] for row in range(len(subjects))]
    return Agreement(
        len(names), len(subjects), pairs, _mean(pair.kappa for pair in pairs), _mean(pair.weighted for pair in pairs), fleiss(counts)
    )  # fmt: skip


def cohen(first: Sequence[str], second: Sequence[str], values: Sequence[str], *, weighted: bool = False) -> float | None:
    """Cohen (1960); with `weighted` Cohen (1968) with quadratic weights over the order of `values`."""
    places = {value: place for place, value in enumerate(values)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        kappa = cohen_kappa_score(
            [places[value] for value in first], [places[value] for value in second],
            labels=range(len(values)), weights="quadratic" if weighted else None,
        )  # fmt: skip
    return None if np.isnan(kappa) else float(kappa)


def fleiss(counts: Sequence[Sequence[int]]) -> float | None:
    """Fleiss (1971), "Measuring nominal scale agreement among many raters", Psychological Bulletin 76: `counts[subject][value]` raters.

    (P - Pe) / (1 - Pe), where P is the mean share of agreeing pairs of raters, and Pe what it would be by chance.
    """
    table = np.array(counts, float)
    raters = table[0].sum()
    if raters < 2:
        return None
    observed = float(((table**2).sum(axis=1) - raters).mean() / (raters * (raters - 1)))
    chance = float(((table.sum(axis=0) / table.sum()) ** 2).sum())
    return None if np.isclose(chance, 1) else (observed - chance) / (1 - chance)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
