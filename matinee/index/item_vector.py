"""The item vector: an item's text vector with some of its facts beside it, so that "more like this" hears era, audience, genres, language.

Its cosine is a weighted sum of kernels: that of the texts, and one of each fact (Gaussian over years and over the logarithm of votes, the
cosine of the sets of genres and of languages). Nothing is learned, so any catalogue has it from the first day. Text search does not use it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt

from matinee.filters.attributes import STORED, Attributes, stored_values
from matinee.index.types import ITEM, TEXT, Manifest, Payload, Point
from matinee.items import ItemFacts
from matinee.settings.index import FactWeights
from matinee.text.title_keys import title_keys
from matinee.vectors import Vector

Kernel = npt.NDArray[np.float32]
_YEARS = np.arange(1880, 2045, 5.0)
_YEARS_APART = 8.0
_VOTES = np.arange(0, 8.25, 0.25)
_VOTES_APART = 0.4
# Signed hashing (Weinberger et al., 2009) gives the values of any catalogue a fixed place; two of 20 genres rarely share one of 64.
_GENRES, _LANGUAGES = 64, 32
# Characters of a list of values that is kept with its numbers.
_SHORT = 500

FACTS_DIMENSION = len(_YEARS) + len(_VOTES) + _GENRES + _LANGUAGES


def dimensions(text: int, weights: FactWeights) -> dict[str, int]:
    """Dense vector name -> d, of a version whose text vectors have `text` numbers."""
    return {TEXT: text} | ({ITEM: text + FACTS_DIMENSION} if weights.any() else {})


def item_vector(text: Vector, item: ItemFacts, weights: FactWeights) -> Vector:
    """float32[d + FACTS_DIMENSION], unit length; `item` is an item's plain facts (`Item.facts`). A missing fact counts nothing."""
    numbers = item.get("numbers") or {}
    year, votes = item.get("year"), numbers.get("votes", numbers.get("popularity"))
    blocks = (
        (weights.year, None if year is None else _year(float(year)), len(_YEARS)),
        (weights.votes, None if votes is None else _votes(float(votes)), len(_VOTES)),
        (weights.genres, _bag(tuple(item.get("genres") or ()), _GENRES), _GENRES),
        (weights.language, _bag(tuple(filter(None, [item.get("language", "")])), _LANGUAGES), _LANGUAGES),
    )
    whole = np.zeros(len(text) + FACTS_DIMENSION, np.float32)
    whole[: len(text)] = text
    start = len(text)
    for weight, block, size in blocks:
        if block is not None:
            np.multiply(block, _root(weight), out=whole[start : start + size])
        start += size
    unit: Vector = whole / np.linalg.norm(whole)
    return unit


def complete_points(points: Sequence[Point], manifest: Manifest) -> Sequence[Point]:
    """The points with the dense vectors, the attributes and the titles that the version has and no others: another's may have others.

    A point without a text vector yet gets no item vector.
    """
    points = [_set_titles(_set_attributes(point, manifest.attributes), manifest) for point in points]
    if manifest.facts is not None and ITEM in manifest.dimensions:
        weights = manifest.facts
        return [_set_item_vector(point, weights) if TEXT in point.dense else point for point in points]
    return [replace(point, dense={name: vector for name, vector in point.dense.items() if name in manifest.dimensions}) for point in points]


def _set_attributes(point: Point, attributes: Attributes | None) -> Point:
    values = stored_values(point.payload["item"], attributes) if attributes and "item" in point.payload else {}
    return _set_field(point, STORED, values or None)


def _set_titles(point: Point, manifest: Manifest) -> Point:
    keys = title_keys(point.payload["title"]) if manifest.titles and "title" in point.payload else None
    return _set_field(point, "titles", keys)


def _set_field(point: Point, key: str, value: object) -> Point:
    """The point with this field in its payload; without it for None."""
    if value == point.payload.get(key):
        return point
    others = {name: other for name, other in point.payload.items() if name != key}
    return replace(point, payload=cast(Payload, others if value is None else others | {key: value}))


def _set_item_vector(point: Point, weights: FactWeights) -> Point:
    return replace(point, dense={**point.dense, ITEM: item_vector(point.dense[TEXT], point.payload["item"], weights)})


@lru_cache(maxsize=64)
def _root(weight: float) -> np.float32:
    root: np.float32 = np.sqrt(np.float32(weight))
    return root


@lru_cache(maxsize=1024)
def _year(year: float) -> Kernel:
    return _bump(_YEARS, _YEARS_APART, year)


@lru_cache(maxsize=4096)
def _votes(votes: float) -> Kernel:
    return _bump(_VOTES, _VOTES_APART, float(np.log10(1 + max(0.0, votes))))


def _bump(centres: npt.NDArray[np.float64], apart: float, value: float) -> Kernel:
    """A Gaussian kernel's feature vector, unit length: a value outside the grid counts as its end."""
    inside = min(max(value, centres[0]), centres[-1])
    heights = np.exp(-(((inside - centres) / apart) ** 2)).astype(np.float32)
    unit: Kernel = heights / np.linalg.norm(heights)
    return unit


def _bag(values: tuple[str, ...], size: int) -> Kernel | None:
    # Long lists don't come twice, and 4096 of them would be hundreds of megabytes.
    return _kept_bag(values, size) if sum(map(len, values)) <= _SHORT else _kept_bag.__wrapped__(values, size)


@lru_cache(maxsize=4096)
def _kept_bag(values: tuple[str, ...], size: int) -> Kernel | None:
    bag = np.zeros(size, np.float32)
    for value in values:
        hashed = int.from_bytes(hashlib.blake2b(value.casefold().encode(), digest_size=8).digest(), "big")
        bag[(hashed >> 1) % size] += 1 if hashed & 1 else -1
    norm = np.linalg.norm(bag)
    return bag / norm if norm > 0 else None
