"""Dev evaluation during training: NDCG@10 of the dev queries over a small pool of items, quick enough for every epoch.

The pool is the dev queries' answers, the dev items and a fixed sample of the others: figures are higher than over the whole corpus, and
good for choosing only (`train.evaluate` measures). Without sets, a sentence of each dev item asks for its item.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.scoring import Encode
from matinee.evaluation.splits import Entry
from matinee.text import templates
from train.embedding.pairs import from_catalogue
from train.jobs.training_items import TrainingItems
from train.reporting import measure
from train.reporting.measure import Corpus

QUERIES = 120


@dataclass(frozen=True)
class DevSet:
    """Queries by set, and the pool they are asked of."""

    pool: Corpus
    template: templates.Template
    sets: tuple[QuerySet, ...]

    def ndcg(self, encode: Encode) -> dict[str, float]:
        """NDCG@10 of each set; an item is never its own answer."""
        dense = measure.dense(self.pool, encode, self.template)
        values = {queries.name: measure.score(self.pool, queries, dense(queries))["ndcg"].values() for queries in self.sets}
        return {name: sum(of_set) / len(of_set) for name, of_set in values.items()}


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
    return DevSet(Corpus(chosen), template, tuple(queries for queries in sets if queries.relevant))


def _sample_queries(queries: QuerySet) -> QuerySet:
    kept = sorted(queries.relevant)
    kept = random.Random(0).sample(kept, min(QUERIES, len(kept)))  # noqa: S311
    return replace(queries, relevant={query: queries.relevant[query] for query in kept})


def _overview_queries(entries: Sequence[Entry], template: templates.Template) -> QuerySet:
    as_train = [replace(entry, split="train") for entry in entries if entry.split == "dev"]
    pairs = from_catalogue(TrainingItems(as_train, template), 0, ("sentence",)).get("sentence", []) if as_train else []
    kept = pairs[:QUERIES]
    return QuerySet("sentence", {p.group: p.anchor for p in kept}, {}, {p.group: {p.positive_id} for p in kept})
