"""Measures retrieval systems on labelled sets: every system is a function from queries to a matrix of scores over the same items.

Systems: random, vote count, BM25 and TF-IDF of the embedded text, an encoder's cosine, and Qdrant's fusions of cosine and BM25 by the
engine's own formulas (`matinee.evaluation.scoring`). An item that asks is never its own answer. Does not write
reports (`train.reporting.report`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matinee.evaluation import metrics, scoring
from matinee.evaluation.metrics import Measure
from matinee.evaluation.query_sets import QuerySet, SetInfo
from matinee.evaluation.scoring import Encode, Scores
from matinee.evaluation.splits import Entry
from matinee.index.item_vector import item_vector
from matinee.index.vector_cache import CachedEncoder, VectorCache
from matinee.languages.folding import fold
from matinee.models.embedder import Embedder
from matinee.settings.index import FactWeights
from matinee.text import templates
from matinee.text.templates import Template
from matinee.vectors import Matrix

MEASURES: tuple[Measure, ...] = ("recall", "ndcg", "mrr")
K = 10

CIRCULAR = "item_metadata (circular)"

_RANDOM_PAIRS = 50


@dataclass
class Corpus:
    """The items that are ranked, as texts in each template. `language`: of their words, as `embedder.language`."""

    entries: Sequence[Entry]
    language: str | None = "english"

    def __post_init__(self) -> None:
        self.ids = [entry.id for entry in self.entries]
        self.rows = {id: row for row, id in enumerate(self.ids)}

    def texts(self, template: Template) -> list[str]:
        return [templates.raw_text(entry.item, template) for entry in self.entries]

    def query_rows(self, queries: QuerySet) -> list[int]:
        """The rows of the items that ask."""
        return [self.rows[queries.items[query]] for query in queries.relevant]

    def has(self, title: str) -> bool:
        return any(fold(entry.item.title) == fold(title) for entry in self.entries)

    def pool(self, name: str | None) -> np.ndarray[Any, Any] | None:
        """The columns that were judged for a kind of label; None where all were."""
        judged = [row for row, entry in enumerate(self.entries) if name in entry.pools]
        return np.array(judged) if judged else None


class ModelVectors:
    """A model's vectors of texts, kept on disk in the folder `cache`: a model encodes a text once."""

    def __init__(self, embedder: Embedder, cache: Path) -> None:
        self._embedder, self._cache = embedder, cache

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    def info(self) -> dict[str, object]:
        return self._embedder.info()

    def __call__(self, texts: Sequence[str], kind: Any = "document") -> Matrix:
        made_by = f"{self._embedder.fingerprint} {self._embedder.precision} {kind}"
        path = self._cache / f"{hashlib.sha256(made_by.encode()).hexdigest()[:32]}.sqlite"
        with closing(VectorCache.open(path)) as cache:
            return CachedEncoder(self._embedder, cache).encode(texts, kind=kind)


System = Callable[[QuerySet], Scores]


def cosine(corpus: Corpus, encode: Encode, queries: QuerySet, documents: Matrix, items: Matrix | None = None) -> Scores:
    """A query item is looked up in `items`: where it is not given, it was treated as the indexed ones were."""
    if queries.of_items:
        return scoring.cosine((documents if items is None else items)[corpus.query_rows(queries)], documents)
    return scoring.cosine(encode([templates.query_text(queries.texts[query]) for query in queries.relevant], "query"), documents)


def dense(corpus: Corpus, encode: Encode, template: Template) -> System:
    documents = encode(corpus.texts(template), "document")
    return lambda queries: cosine(corpus, encode, queries, documents)


def with_facts(corpus: Corpus, encoder: ModelVectors, template: Template, weights: FactWeights) -> System:
    """As the API compares items with items (`matinee.index.item_vector`); for sets of items only: a text has no facts."""
    documents = encoder(corpus.texts(template))
    whole = np.stack([item_vector(text, entry.item.facts(), weights) for text, entry in zip(documents, corpus.entries, strict=True)])
    return lambda queries: scoring.cosine(whole[corpus.query_rows(queries)], whole)


def lexical(
    corpus: Corpus, scorer: type[scoring.Bm25Scorer] | type[scoring.TfidfScorer], documents: Sequence[str], words: Sequence[str]
) -> System:
    """By the words of `documents`. A query item asks with its own, those of `words`."""
    ready = scorer(documents, corpus.language)
    return lambda queries: ready(
        [words[row] for row in corpus.query_rows(queries)] if queries.of_items else [queries.texts[query] for query in queries.relevant]
    )


def chance(corpus: Corpus) -> System:
    return lambda queries: np.random.default_rng(0).random((len(queries.relevant), len(corpus.ids)), np.float32)


def votes(corpus: Corpus) -> System:
    counts = np.array([entry.item.numbers.get("votes", entry.item.numbers.get("popularity", 0.0)) for entry in corpus.entries], np.float32)
    return lambda queries: np.tile(counts, (len(queries.relevant), 1))


def fuse(first: System, second: System, fusion: str, k: int = 10, weights: tuple[float, float] = (1.0, 1.0)) -> System:
    def score(queries: QuerySet) -> Scores:
        return scoring.fuse([first(queries), second(queries)], fusion, k=k, weights=weights)

    return score


def cache_scores(system: System) -> System:
    """Its scores of each set are computed once: fusions ask for the same ones again and again."""
    known: dict[str, Scores] = {}

    def score(queries: QuerySet) -> Scores:
        if queries.name not in known:
            known[queries.name] = system(queries)
        # A copy: whoever asks may strike items out.
        return known[queries.name].copy()

    return score


PerQuery = dict[Measure, dict[str, float]]


def score(corpus: Corpus, queries: QuerySet, scores: Scores, *, pool: np.ndarray[Any, Any] | None = None) -> PerQuery:
    """Each measure of each query. With a pool only its items are ranked, and only they can be right; an item of score -inf never is."""
    query_ids = list(queries.relevant)
    ids = corpus.ids
    relevant: Mapping[str, set[str]] = queries.relevant
    if queries.of_items:
        scores[range(len(query_ids)), corpus.query_rows(queries)] = -np.inf
    if pool is not None:
        scores, ids = scores[:, pool], [ids[row] for row in pool]
        inside = set(ids)
        relevant = {query: inside_pool for query, answers in queries.relevant.items() if (inside_pool := answers & inside)}
    best = zip(query_ids, scores, scoring.top(scores, K), strict=True)
    runs = {query: [ids[column] for column in columns if row[column] > -np.inf] for query, row, columns in best}
    return {measure: metrics.per_query(runs, relevant, measure, K) for measure in MEASURES}


@dataclass(frozen=True)
class Closeness:
    """Cosine of related pairs, its gap to random pairs, and how often a related pair is nearer than a random one (AUC)."""

    related: float
    gap: float
    auc: float


def closeness(corpus: Corpus, queries: QuerySet, scores: Scores) -> Closeness:
    """The mean cosine alone means nothing (a model may call everything alike): the gap and the AUC are what counts."""
    rng = np.random.default_rng(0)
    related, unrelated, wins = [], [], []
    for row, (query, ids) in enumerate(queries.relevant.items()):
        right = scores[row, [corpus.rows[id] for id in ids]]
        banned = {*ids, queries.items.get(query)} if queries.of_items else ids
        others = [column for column in rng.integers(0, len(corpus.ids), _RANDOM_PAIRS) if corpus.ids[column] not in banned]
        wrong = scores[row, others]
        related.append(float(right.mean()))
        unrelated.append(float(wrong.mean()))
        wins.append(float((right[:, None] > wrong[None, :]).mean() + 0.5 * (right[:, None] == wrong[None, :]).mean()))
    return Closeness(float(np.mean(related)), float(np.mean(related) - np.mean(unrelated)), float(np.mean(wins)))


def circular_set(corpus: Corpus, split: str, count: int = 200) -> QuerySet:
    """The paper's own kind of label: held-out items, and the items most like them BY THEIR METADATA. Circular, since the same metadata is
    embedded: reported to compare with the paper, not to judge by."""
    info = SetInfo(kind="item", trainable=False)
    heldout = [entry for entry in corpus.entries if entry.split == split][:count]
    if not heldout:
        return QuerySet(CIRCULAR, {}, {}, {}, info)
    genres = [set(entry.item.genres) for entry in corpus.entries]
    tfidf = scoring.TfidfScorer([entry.item.overview or entry.item.title for entry in corpus.entries], corpus.language)
    scores = tfidf([entry.item.overview or entry.item.title for entry in heldout])
    for row, entry in enumerate(heldout):
        own = set(entry.item.genres)
        scores[row] += np.array([len(own & other) / max(1, len(own | other)) for other in genres], np.float32)
        scores[row, corpus.rows[entry.id]] = -1
    best = scoring.top(scores, K)
    labels = {entry.id: {corpus.ids[column] for column in best[row]} for row, entry in enumerate(heldout)}
    return QuerySet(CIRCULAR, {entry.id: entry.item.title for entry in heldout}, {id: id for id in labels}, labels, info)
