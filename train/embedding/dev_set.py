"""Dev evaluation during training: NDCG@10 of the dev queries over a small pool of items, quick enough for every epoch.

The pool is the dev queries' answers, the dev items and a fixed sample of the others: figures are higher than over the whole corpus, and
good for choosing only (`train.evaluate` measures). Without sets, a sentence of each dev item asks for its item.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matinee.evaluation import metrics, scoring
from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.splits import Entry
from matinee.text import templates
from train.embedding.negatives import Encode
from train.embedding.pairs import from_catalogue
from train.jobs.training_items import TrainingItems

QUERIES = 120


@dataclass(frozen=True)
class DevSet:
    """Queries by set, and the pool they are asked of."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    sets: tuple[QuerySet, ...]

    def ndcg(self, encode: Encode) -> dict[str, float]:
        """NDCG@10 of each set; an item is never its own answer."""
        documents = encode(self.texts, "document")
        rows = {id: row for row, id in enumerate(self.ids)}
        by_set = {}
        for queries in self.sets:
            query_ids = list(queries.relevant)
            query_rows = [rows[queries.items[query]] for query in query_ids] if queries.of_items else []
            if queries.of_items:
                vectors = documents[query_rows]
            else:
                vectors = encode([templates.query_text(queries.texts[query]) for query in query_ids], "query")
            scores = scoring.cosine(vectors, documents)
            if queries.of_items:
                scores[range(len(query_ids)), query_rows] = -2
            runs = {query: [self.ids[column] for column in best] for query, best in zip(query_ids, scoring.top(scores, 10), strict=True)}
            values = metrics.per_query(runs, queries.relevant, "ndcg")
            by_set[queries.name] = sum(values.values()) / len(values)
        return by_set


def dev_set(entries: Sequence[Entry], folder: Path | None, template: templates.Template, *, pool: int) -> DevSet:
    """The dev side of every set of `folder`, thinned to `QUERIES` each."""
    names = set_names(folder, "dev") if folder is not None else []
    sets = [_sample_queries(read_set(folder, name, "dev")) for name in names if folder is not None]
    if not sets:
        sets = [_overview_queries(entries, template)]
    ids = {entry.id for entry in entries}
    sets = [queries.restricted_to(ids) for queries in sets]
    needed = {id for queries in sets for ids in queries.relevant.values() for id in ids} | {
        id for queries in sets for id in queries.items.values()
    }
    chosen = [entry for entry in entries if entry.id in needed]
    rest = sorted((entry for entry in entries if entry.id not in needed), key=lambda entry: (entry.split != "dev", entry.id))
    dev = [entry for entry in rest if entry.split == "dev"]
    others = random.Random(0).sample([e for e in rest if e.split != "dev"], k=sum(e.split != "dev" for e in rest))  # noqa: S311
    chosen += [*dev, *others][: max(0, pool - len(chosen))]
    texts = tuple(templates.raw_text(entry.item, template) for entry in chosen)
    return DevSet(tuple(entry.id for entry in chosen), texts, tuple(queries for queries in sets if queries.relevant))


def _sample_queries(queries: QuerySet) -> QuerySet:
    kept = sorted(queries.relevant)
    kept = random.Random(0).sample(kept, min(QUERIES, len(kept)))  # noqa: S311
    return replace(queries, relevant={query: queries.relevant[query] for query in kept})


def _overview_queries(entries: Sequence[Entry], template: templates.Template) -> QuerySet:
    as_train = [replace(entry, split="train") for entry in entries if entry.split == "dev"]
    pairs = from_catalogue(TrainingItems(as_train, template), 0, ("sentence",)).get("sentence", []) if as_train else []
    kept = pairs[:QUERIES]
    return QuerySet("sentence", {p.group: p.anchor for p in kept}, {}, {p.group: {p.positive_id} for p in kept})
