"""The tables of the evaluation report, as plain rows: Table 1 and 2 of the paper, closeness, hybrids with their weights, text recipes.

Does not decide what is measured (`train.evaluate`) and does not draw (`train.reporting.report`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np

from matinee.errors import SettingsError
from matinee.evaluation import metrics, scoring
from matinee.evaluation.query_sets import QuerySet
from matinee.languages.folding import fold
from matinee.settings.index import FactWeights
from matinee.settings.tree import SearchSettings
from matinee.text.templates import SPARSE_TEMPLATE, Template
from train.reporting import measure
from train.reporting.measure import MEASURES, Corpus, ModelVectors, PerQuery, System
from train.reporting.rows import ClosenessRow, HybridRow, Intervals, Means, RecipeRow, SetRow, TitleRow, interval_row

Systems = Mapping[str, System]

WITH_FACTS = " + facts"


@dataclass(frozen=True)
class Fusion:
    """One way to fuse cosine and BM25."""

    kind: str
    k: int = 10
    dense: float = 1.0
    sparse: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Fusion":
        kind, *numbers = text.split(":")
        try:
            if kind == "dbsf" and not numbers:
                return cls("dbsf")
            if kind == "linear" and len(numbers) == 1:
                return cls("linear", sparse=float(numbers[0]))
            if kind == "rrf" and len(numbers) == 3:
                return cls("rrf", int(numbers[0]), float(numbers[1]), float(numbers[2]))
        except ValueError:
            pass
        raise SettingsError(f"--fusion {text}: write linear:BM25_WEIGHT (linear:0.015), dbsf, or rrf:K:DENSE:SPARSE (rrf:10:1:2)")

    @classmethod
    def of_settings(cls, search: SearchSettings) -> "Fusion":
        """The one that the API ranks with."""
        if search.fusion == "dbsf":
            return cls("dbsf")
        return cls(search.fusion, search.rrf_k if search.fusion == "rrf" else cls.k, *search.weights)

    @property
    def name(self) -> str:
        match self.kind:
            case "linear":
                return f"linear, BM25 times {self.sparse:g}"
            case "rrf":
                return f"rrf k={self.k} {self.dense:g}:{self.sparse:g}"
        return self.kind


GRID = [
    Fusion("dbsf"),
    *(Fusion("linear", sparse=weight) for weight in (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.03, 0.05)),
    *(Fusion("rrf", k, *w) for k, w in product((2, 10, 60), ((3.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, 2.0), (1.0, 3.0)))),
]


def systems(corpus: Corpus, encoders: Mapping[str, ModelVectors], template: Template, facts: FactWeights) -> dict[str, System]:
    """Baselines first, then the models; each one's scores of a set are computed once. The item vector answers sets of items only."""
    words = corpus.texts(SPARSE_TEMPLATE)
    by_name: dict[str, System] = {
        "random": measure.chance(corpus),
        "vote count": measure.votes(corpus),
        "BM25": measure.lexical(corpus, scoring.Bm25Scorer, words, words),
        "TF-IDF": measure.lexical(corpus, scoring.TfidfScorer, words, words),
    }
    by_name |= {name: measure.dense(corpus, encoder, template) for name, encoder in encoders.items()}
    if facts.any():
        by_name |= {f"{name}{WITH_FACTS}": measure.with_facts(corpus, encoder, template, facts) for name, encoder in encoders.items()}
    return {name: measure.cache_scores(system) for name, system in by_name.items()}


def table1(corpus: Corpus, systems: Systems, sets: Sequence[QuerySet]) -> list[SetRow]:
    """Set x system x pool: each measure with its interval, and the paired difference to `before` (with facts: to it with facts)."""
    rows: list[SetRow] = []
    for queries in sets:
        pool = corpus.pool(queries.pool) if queries.pool else None
        for where, columns in (("all items", None), *((("judged items", pool),) if pool is not None else ())):
            asking = {name: system for name, system in systems.items() if queries.of_items or not name.endswith(WITH_FACTS)}
            judged = {name: measure.score(corpus, queries, system(queries), pool=columns) for name, system in asking.items()}
            for name, measured in judged.items():
                figures = intervals(measured)
                row: SetRow = {
                    "set": queries.name,
                    "system": name,
                    "items": where,
                    "queries": len(measured["ndcg"]),
                    "recall": figures["recall"],
                    "ndcg": figures["ndcg"],
                    "mrr": figures["mrr"],
                }
                # Like with like: against the bare text the facts' own gain would be counted as the training's.
                other = f"before{WITH_FACTS}" if name == f"after{WITH_FACTS}" else "before"
                if other in judged and name != other:
                    row["minus_before"] = differences(measured, judged[other])
                rows.append(row)
    return rows


def intervals(measured: PerQuery) -> Intervals:
    recall, ndcg, mrr = (interval_row(metrics.interval(measured[kind].values())) for kind in MEASURES)
    return {"recall": recall, "ndcg": ndcg, "mrr": mrr}


def differences(measured: PerQuery, before: PerQuery) -> Intervals:
    """Paired, query by query."""
    recall, ndcg, mrr = (interval_row(metrics.paired_difference(measured[kind], before[kind])) for kind in MEASURES)
    return {"recall": recall, "ndcg": ndcg, "mrr": mrr}


def _means_of(measured: PerQuery) -> Means:
    recall, ndcg, mrr = (float(np.mean(list(measured[kind].values()))) for kind in MEASURES)
    return {"recall": recall, "ndcg": ndcg, "mrr": mrr}


def closeness(corpus: Corpus, systems: Systems, sets: Sequence[QuerySet]) -> list[ClosenessRow]:
    rows: list[ClosenessRow] = []
    for queries in sets:
        for name in ("before", "after"):
            if name in systems:
                pairs = measure.closeness(corpus, queries, systems[name](queries))
                rows.append({"set": queries.name, "system": name, "related": pairs.related, "gap": pairs.gap, "auc": pairs.auc})
    return rows


def hybrids(corpus: Corpus, systems: Systems, sets: Sequence[QuerySet], fusions: Sequence[Fusion], configured: Fusion) -> list[HybridRow]:
    """Every fusion with BM25 on every set; `mean` over the text sets is what weights are chosen by.

    Fusions that were fixed beforehand (those given, or else the configured one) also have `intervals`, and `minus_before` to the same
    fusion of `before`. The rest of the grid has none: the best of many looks better than it is.
    """
    fixed = list(fusions) or [configured]
    texts = [queries.name for queries in sets if not queries.of_items]
    rows: list[HybridRow] = []
    before: dict[Fusion, dict[str, PerQuery]] = {}
    for name in ("before", "after"):
        if name not in systems:
            continue
        for fusion in dict.fromkeys(fusions or [configured, *GRID]):
            system = measure.fuse(systems[name], systems["BM25"], fusion.kind, fusion.k, (fusion.dense, fusion.sparse))
            judged = {queries.name: measure.score(corpus, queries, system(queries)) for queries in sets}
            means = {set: _means_of(measured) for set, measured in judged.items()}
            mean = float(np.mean([means[set]["ndcg"] for set in texts])) if texts else None
            row: HybridRow = {"system": name, "fusion": fusion.name, "sets": means, "mean": mean}
            if fusion in fixed:
                row["intervals"] = {set: intervals(measured) for set, measured in judged.items()}
                if fusion in before:
                    row["minus_before"] = {set: differences(measured, before[fusion][set]) for set, measured in judged.items()}
                before[fusion] = judged
            rows.append(row)
    return sorted(rows, key=lambda row: (row["system"], -(row["mean"] or 0)))


def table2(corpus: Corpus, encoders: Mapping[str, ModelVectors], template: Template, titles: Sequence[str]) -> list[TitleRow]:
    """The best recommendation for each title, before and after, with its cosine."""
    row_of: dict[str, int] = {}
    # Of several items with one title the best known one is meant.
    for row in sorted(range(len(corpus.ids)), key=lambda row: corpus.entries[row].item.numbers.get("votes", 0)):
        row_of[fold(corpus.entries[row].item.title)] = row
    rows = []
    for title in dict.fromkeys(titles):
        query_row = row_of.get(fold(title))
        hits: TitleRow = {"title": title}
        for name, encoder in encoders.items():
            if query_row is None:
                hits[name] = None
                continue
            documents = encoder(corpus.texts(template))
            scores = scoring.cosine(documents[[query_row]], documents)
            scores[0, query_row] = -2
            best = scoring.top(scores, 3)[0]
            hits[name] = [{"title": corpus.entries[column].item.title, "cosine": float(scores[0, column])} for column in best]
        rows.append(hits)
    return rows


def recipes(corpus: Corpus, encoders: Mapping[str, ModelVectors], sets: Sequence[QuerySet]) -> list[RecipeRow]:
    """Each text an item can be embedded as without a description, with each model."""
    rows: list[RecipeRow] = []
    for name, encoder in encoders.items():
        for template in get_args(Template):
            system = measure.dense(corpus, encoder, template)
            for queries in sets:
                judged = measure.score(corpus, queries, system(queries))
                rows.append({"set": queries.name, "system": name, "text": template, **_means_of(judged)})
    return rows
