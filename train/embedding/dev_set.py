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
from train.embedding.pairs import Trainable, from_catalogue

POOL = 2000
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
        found = {}
        for queries in self.sets:
            asked = list(queries.relevant)
            if queries.of_items:
                vectors = documents[[rows[queries.items[query]] for query in asked]]
            else:
                vectors = encode([templates.query_text(queries.texts[query]) for query in asked], "query")
            scores = scoring.cosine(vectors, documents)
            if queries.of_items:
                scores[range(len(asked)), [rows[queries.items[query]] for query in asked]] = -2
            runs = {query: [self.ids[column] for column in best] for query, best in zip(asked, scoring.top(scores, 10), strict=True)}
            values = metrics.per_query(runs, queries.relevant, "ndcg")
            found[queries.name] = sum(values.values()) / len(values)
        return found


def dev_set(
    entries: Sequence[Entry], folder: Path | None, template: templates.Template, *, pool: int = POOL, queries: int = QUERIES
) -> DevSet:
    """The dev side of every set of `folder`, thinned to `queries` each."""
    names = set_names(folder, "dev") if folder is not None else []
    sets = [_thinned(read_set(folder, name, "dev"), queries) for name in names if folder is not None]
    if not sets:
        sets = [_own(entries, template, queries)]
    known = {entry.id: entry for entry in entries}
    sets = [_inside(asked, known) for asked in sets]
    wanted = {id for asked in sets for ids in asked.relevant.values() for id in ids} | {id for asked in sets for id in asked.items.values()}
    chosen = [entry for entry in entries if entry.id in wanted]
    rest = sorted((entry for entry in entries if entry.id not in wanted), key=lambda entry: (entry.split != "dev", entry.id))
    dev = [entry for entry in rest if entry.split == "dev"]
    others = random.Random(0).sample([e for e in rest if e.split != "dev"], k=sum(e.split != "dev" for e in rest))  # noqa: S311
    chosen += [*dev, *others][: max(0, pool - len(chosen))]
    texts = tuple(templates.raw_text(entry.item, template) for entry in chosen)
    return DevSet(tuple(entry.id for entry in chosen), texts, tuple(asked for asked in sets if asked.relevant))


def _thinned(asked: QuerySet, count: int) -> QuerySet:
    kept = sorted(asked.relevant)
    kept = random.Random(0).sample(kept, min(count, len(kept)))  # noqa: S311
    return replace(asked, relevant={query: asked.relevant[query] for query in kept})


def _inside(asked: QuerySet, known: dict[str, Entry]) -> QuerySet:
    inside = {query: {id for id in ids if id in known} for query, ids in asked.relevant.items()}
    kept = {query: ids for query, ids in inside.items() if ids and (not asked.of_items or asked.items[query] in known)}
    return replace(asked, items={query: asked.items[query] for query in kept if query in asked.items}, relevant=kept)


def _own(entries: Sequence[Entry], template: templates.Template, count: int) -> QuerySet:
    as_train = [replace(entry, split="train") for entry in entries if entry.split == "dev"]
    pairs = from_catalogue(Trainable(as_train, template), 0, ("sentence",)).get("sentence", []) if as_train else []
    kept = pairs[:count]
    return QuerySet("sentence", {p.group: p.anchor for p in kept}, {}, {p.group: {p.positive_id} for p in kept})
