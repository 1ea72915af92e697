"""Which items a model describes, and in which order: by title, by what evaluation sets look for, by seed. Describes nothing."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import read_set, set_names
from matinee.evaluation.splits import Entry, order_key
from matinee.languages.folding import fold


def with_titles(entries: Sequence[Entry], titles: Sequence[str]) -> list[Entry]:
    by_key = {fold(title): title for title in titles}
    matches = [entry for entry in entries if fold(entry.item.title) in by_key]
    unknown = by_key.keys() - {fold(entry.item.title) for entry in matches}
    if unknown:
        raise SettingsError(f"--title {by_key[min(unknown)]}: no item has that title")
    return matches


def ranked_sample(entries: Sequence[Entry], count: int | None, seed: int, weights: dict[str, float]) -> list[Entry]:
    """The heaviest first, then in an order that only the seed and the ids decide."""
    ordered = sorted(entries, key=lambda entry: order_key(seed, entry.id))
    ordered.sort(key=lambda entry: -weights.get(entry.id, 0.0))
    return ordered[:count]


def query_weights(folder: Path, split: str) -> dict[str, float]:
    """Item -> how many queries need it. A query counts 1, divided among the items that answer it; the item that it asks with gets 1."""
    weights: dict[str, float] = defaultdict(float)
    for name in set_names(folder, split):
        queries = read_set(folder, name, split)
        for query, ids in queries.relevant.items():
            for id in ids:
                weights[id] += 1 / len(ids)
            if queries.of_items:
                weights[queries.items[query]] += 1
    if not weights:
        raise SourceError(f"{folder} has no evaluation set with {split} queries")
    return dict(weights)
