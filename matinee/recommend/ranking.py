"""From candidates to an answer: diversity, which like speaks for an item, and what two items really share. Pure functions, no I/O."""

from collections.abc import Sequence

import numpy as np

from matinee.index.types import Hit
from matinee.items import ItemFacts
from matinee.text.templates import Shared
from matinee.vectors import Vector

MIN_POOL = 50
"""Diversity picks from at least this many candidates."""


def pool_size(k: int, diversity: float) -> int:
    """How many candidates a list of `k` needs: more only where `diversity` has something to choose from."""
    return k if diversity == 0 else max(MIN_POOL, 5 * k)


def diversify(hits: Sequence[Hit], k: int, diversity: float) -> list[Hit]:
    """The best `k` by maximal marginal relevance (Carbonell and Goldstein, 1998), lambda = 1 - `diversity`.

    Relevance is the rank-normalised score, so that cosine, RRF and popularity lists diversify alike; similarity is the cosine of the
    hits' vectors (unit length). Hits without a vector count as similar to nothing.
    """
    if diversity == 0 or len(hits) <= 1:
        return list(hits[:k])
    missing = np.zeros(next((len(hit.vector) for hit in hits if hit.vector is not None), 1), np.float32)
    vectors = np.stack([missing if hit.vector is None else hit.vector for hit in hits])
    relevance = np.linspace(1.0, 0.0, len(hits))
    closest = np.zeros(len(hits))
    left = np.ones(len(hits), bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(hits)):
        gain = (1 - diversity) * relevance - diversity * closest
        pick = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(pick)
        left[pick] = False
        closest = np.maximum(closest, vectors @ vectors[pick])
    return [hits[i] for i in chosen]


def nearest_like(vector: Vector | None, likes: Sequence[Vector]) -> int:
    """Index of the liked vector (unit length) that is nearest to `vector`: the like that a reason names."""
    if vector is None or len(likes) < 2:
        return 0
    return int(np.argmax([float(vector @ like) for like in likes]))


class LikedFacts:
    """What an item can have in common with a liked one (`Item.facts()`), whatever the case."""

    def __init__(self, liked: ItemFacts) -> None:
        self._genres = {genre.casefold() for genre in liked.get("genres", ())}
        self._people = {role: {name.casefold() for name in names} for role, names in liked.get("people", {}).items()}
        self._language = (liked.get("language") or "").casefold()
        self._year = liked.get("year")

    def shared_with(self, item: ItemFacts) -> Shared:
        """What both have, in the order of `item`; nothing is inferred."""
        genres = [genre for genre in item.get("genres", ()) if genre.casefold() in self._genres]
        people = {}
        for role in item.get("people", ()):
            if role in self._people and (names := [name for name in item["people"][role] if name.casefold() in self._people[role]]):
                people[role] = tuple(names)
        year, language = item.get("year"), item.get("language")
        same_decade = year is not None and self._year is not None and year // 10 == self._year // 10
        return Shared(
            tuple(genres),
            people,
            language if language and language.casefold() == self._language else None,
            year // 10 * 10 if same_decade and year is not None else None,
        )
