"""The tables of the evaluation report, as plain rows: Table 1 and 2 of the paper, closeness, hybrids with their weights, text recipes.

Does not decide what is measured (`train.evaluate`) and does not draw (`train.reporting.report`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from matinee.characters import fold
from matinee.errors import SettingsError
from matinee.evaluation import metrics, scoring
from matinee.evaluation.query_sets import QuerySet
from matinee.settings.index import FactWeights
from matinee.settings.tree import SearchSettings
from train.reporting import measure
from train.reporting.measure import Corpus, ModelVectors, PerQuery, System, Texts

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
    def configured(cls, search: SearchSettings) -> "Fusion":
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


def systems(corpus: Corpus, encoders: Mapping[str, ModelVectors], kind: Texts, facts: FactWeights) -> dict[str, System]:
    """Baselines first, then the models; each one's scores of a set are computed once. The item vector answers sets of items only."""
    by_name: dict[str, System] = {
        "random": measure.chance(corpus),
        "vote count": measure.votes(corpus),
        "BM25": measure.lexical(corpus, scoring.Bm25Scorer),
        "TF-IDF": measure.lexical(corpus, scoring.TfidfScorer),
    }
    by_name |= {name: measure.dense(corpus, encoder, kind) for name, encoder in encoders.items()}
    if facts.any():
        by_name |= {f"{name}{WITH_FACTS}": measure.with_facts(corpus, encoder, kind, facts) for name, encoder in encoders.items()}
    return {name: measure.cached(system) for name, system in by_name.items()}


def table1(corpus: Corpus, systems: Systems, sets: Sequence[QuerySet]) -> list[dict[str, Any]]:
    """Set x system x pool: each measure with its interval, and the paired difference to `before` (with facts: to it with facts)."""
    rows = []
    for queries in sets:
        pool = corpus.pool(queries.pool) if queries.pool else None
        for where, columns in (("all items", None), *((("judged items", pool),) if pool is not None else ())):
            asking = {name: system for name, system in systems.items() if queries.of_items or not name.endswith(WITH_FACTS)}
            judged = {name: measure.judge(corpus, queries, system(queries), pool=columns) for name, system in asking.items()}
            for name, measured in judged.items():
                row: dict[str, Any] = {"set": queries.name, "system": name, "items": where, "queries": len(measured["ndcg"])}
                row |= _intervals(measured)
                # Like with like: against the bare text the facts' own gain would be counted as the training's.
                other = f"before{WITH_FACTS}" if name == f"after{WITH_FACTS}" else "before"
                if other in judged and name != other:
                    row["minus_before"] = _difference(measured, judged[other])
                rows.append(row)
    return rows


def _intervals(measured: PerQuery) -> dict[str, Any]:
    return {kind: asdict(metrics.interval(values.values())) for kind, values in measured.items()}


def _difference(measured: PerQuery, before: PerQuery) -> dict[str, Any]:
    return {kind: asdict(metrics.paired_difference(measured[kind], before[kind])) for kind in measured}


def closeness(corpus: Corpus, systems: Systems, sets: Sequence[QuerySet]) -> list[dict[str, Any]]:
    return [
        {"set": queries.name, "system": name, **asdict(measure.closeness(corpus, queries, systems[name](queries)))}
        for queries in sets
        for name in ("before", "after")
        if name in systems
    ]


def hybrids(
    corpus: Corpus, systems: Systems, sets: Sequence[QuerySet], fusions: Sequence[Fusion], configured: Fusion
) -> list[dict[str, Any]]:
    """Every fusion with BM25 on every set; `mean` over the text sets is what weights are chosen by.

    Fusions that were fixed beforehand (those given, or else the configured one) also have `intervals`, and `minus_before` to the same
    fusion of `before`. The rest of the grid has none: the best of many looks better than it is.
    """
    fixed = list(fusions) or [configured]
    rows = []
    before: dict[Fusion, dict[str, PerQuery]] = {}
    for name in ("before", "after"):
        if name not in systems:
            continue
        for fusion in dict.fromkeys(fusions or [configured, *GRID]):
            system = measure.fused(systems[name], systems["BM25"], fusion.kind, fusion.k, (fusion.dense, fusion.sparse))
            judged = {queries.name: measure.judge(corpus, queries, system(queries)) for queries in sets}
            row: dict[str, Any] = {"system": name, "fusion": fusion.name}
            row |= _means(judged, [queries.name for queries in sets if not queries.of_items])
            if fusion in fixed:
                row["intervals"] = {set: _intervals(measured) for set, measured in judged.items()}
                if fusion in before:
                    row["minus_before"] = {set: _difference(measured, before[fusion][set]) for set, measured in judged.items()}
                before[fusion] = judged
            rows.append(row)
    return sorted(rows, key=lambda row: (row["system"], -(row["mean"] or 0)))


def _means(judged: Mapping[str, PerQuery], texts: Sequence[str]) -> dict[str, Any]:
    figures = {set: {kind: float(np.mean(list(values.values()))) for kind, values in measured.items()} for set, measured in judged.items()}
    return {"sets": figures, "mean": float(np.mean([figures[set]["ndcg"] for set in texts])) if texts else None}


def table2(corpus: Corpus, encoders: Mapping[str, ModelVectors], kind: Texts, titles: Sequence[str]) -> list[dict[str, Any]]:
    """The best recommendation for each title, before and after, with its cosine."""
    row_of: dict[str, int] = {}
    # Of several items with one title the best known one is meant.
    for row in sorted(range(len(corpus.ids)), key=lambda row: corpus.entries[row].item.numbers.get("votes", 0)):
        row_of[fold(corpus.entries[row].item.title)] = row
    rows = []
    for title in dict.fromkeys(titles):
        query_row = row_of.get(fold(title))
        hits: dict[str, Any] = {"title": title}
        for name, encoder in encoders.items():
            if query_row is None:
                hits[name] = None
                continue
            documents = encoder(corpus.texts(kind))
            scores = scoring.cosine(documents[[query_row]], documents)
            scores[0, query_row] = -2
            best = scoring.top(scores, 3)[0]
            hits[name] = [{"title": corpus.entries[column].item.title, "cosine": float(scores[0, column])} for column in best]
        rows.append(hits)
    return rows


def recipes(corpus: Corpus, encoders: Mapping[str, ModelVectors], sets: Sequence[QuerySet]) -> list[dict[str, Any]]:
    """Each text an item can be embedded as without a description, with each model."""
    rows = []
    for name, encoder in encoders.items():
        for kind in (Texts("full"), Texts("plain")):
            system = measure.dense(corpus, encoder, kind)
            for queries in sets:
                judged = measure.judge(corpus, queries, system(queries))
                means: dict[str, float] = {measured: float(np.mean(list(values.values()))) for measured, values in judged.items()}
                rows.append({"set": queries.name, "system": name, "text": kind.template, **means})
    return rows
