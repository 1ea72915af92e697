"""A catalogue of generated items of any size, made block by block, so that it never lies in memory as a whole. The same for the same seed.

Lengths and numbers of facts are those of the bundled films: a title of one to four words, an overview of about 46, a director, four
actors. Vectors are drawn so that a nearest neighbour means something: each item belongs to one of some thousand topics, which share
directions as texts do, and lies around its topic; genres and words follow the topic too. The variances of the directions fall by a power
law, and all vectors share a mean. With 553 items their cosines are about those of MiniLM on the 553 bundled films: 0.17 on the average
(0.20), 0.49 to the nearest item (0.47), 0.40 to the tenth (0.38), 0.29 to the hundredth (0.27). No text was embedded: the words of a query
and its vector have the topic in common, and nothing else.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from matinee.items import Item
from matinee.vectors import Matrix, Vector

BLOCK = 1024
"""Items that are made together."""

_TOPICS = 3000
_TOPIC_WORDS = 60
_COMMON = 20
_APART = 7919
_DECAY, _MEAN = 0.8, 0.48
_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aeiou"]
_WORDS = [first + second for first in _SYLLABLES for second in _SYLLABLES]
_WORDS += [first + word for first in _SYLLABLES[::5] for word in _WORDS][:30_000]
GENRES = {
    "Drama": 322,
    "Comedy": 135,
    "Romance": 103,
    "Adventure": 93,
    "Thriller": 90,
    "Action": 90,
    "Crime": 85,
    "Science Fiction": 72,
    "Fantasy": 64,
    "History": 63,
    "Music": 56,
    "Family": 55,
    "War": 55,
    "Horror": 50,
    "Mystery": 43,
    "Animation": 39,
    "Documentary": 20,
    "Western": 15,
}
"""A genre -> how many of the 553 bundled films have it."""
LANGUAGES = {"en": 326, "fr": 43, "ja": 29, "de": 22, "es": 20, "zh": 18, "it": 15, "ru": 10, "ko": 8, "sv": 8, "pt": 6, "hi": 6}
_COUNTRIES = dict(zip(LANGUAGES, ("US", "FR", "JP", "DE", "ES", "CN", "IT", "RU", "KR", "SE", "BR", "IN"), strict=True))


@dataclass(frozen=True)
class Block:
    """Some items, and their text vectors: float32[items, d], unit length."""

    items: list[Item]
    vectors: Matrix


@dataclass(frozen=True)
class GeneratedQuery:
    """A text as a user would type it, with its vector: like an item of the catalogue, but a little apart."""

    text: str
    vector: Vector


class GeneratedCatalogue:
    """`count` items with vectors of `dimension` numbers."""

    def __init__(self, count: int, dimension: int, seed: int = 1) -> None:
        self.count, self.dimension = count, dimension
        self._seed = seed

    @property
    def blocks(self) -> int:
        return -(-self.count // BLOCK)

    def block(self, number: int) -> Block:
        rng = np.random.default_rng((self._seed, number))
        first = number * BLOCK
        size = min(BLOCK, self.count - first)
        topics = rng.choice(_TOPICS, size, p=self._shares)
        vectors = self._vectors(topics, rng)
        years = 2025 - np.minimum(rng.exponential(25, size), 100).astype(int)
        votes = np.round(np.exp(rng.normal(5, 2, size)))
        ratings = np.clip(rng.normal(6.5, 1.2, size), 1, 10).round(1)
        languages = rng.choice([*LANGUAGES], size, p=_shares(LANGUAGES))
        items = []
        for n, topic in enumerate(topics):
            language = str(languages[n])
            item = Item(
                id=f"generated-{first + n}",
                kind="film",
                title=self._text(topic, int(rng.integers(1, 5)), rng).title(),
                year=int(years[n]),
                genres=tuple(self._genres[topic][: rng.integers(1, 5)]),
                people={"director": self._names(1, rng), "cast": self._names(4, rng)},
                overview=self._text(topic, int(rng.integers(41, 52)), rng),
                language=language,
                numbers={"votes": float(votes[n]), "rating": float(ratings[n])},
                extra={"country": [_COUNTRIES[language]]},
            )
            items.append(item)
        return Block(items, vectors)

    def queries(self, count: int) -> list[GeneratedQuery]:
        rng = np.random.default_rng((self._seed, self.count, count))
        topics = rng.choice(_TOPICS, count, p=self._shares)
        vectors = self._vectors(topics, rng)
        return [
            GeneratedQuery(self._text(topic, int(rng.integers(2, 9)), rng), vector) for topic, vector in zip(topics, vectors, strict=True)
        ]

    def _vectors(self, topics: np.ndarray[tuple[int], np.dtype[np.int64]], rng: np.random.Generator) -> Matrix:
        plain = self._centres[topics] + rng.standard_normal((len(topics), self.dimension)).astype(np.float32) * self._scales
        apart = plain @ self._rotation
        shared = apart / np.linalg.norm(apart, axis=1, keepdims=True) + _MEAN * self._rotation[0]
        unit: Matrix = (shared / np.linalg.norm(shared, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _text(self, topic: int, words: int, rng: np.random.Generator) -> str:
        """Half of the words are of the topic, the others of all of them by Zipf's law; there are no stop words."""
        frequent = (_COMMON * (len(_WORDS) / _COMMON) ** rng.random(words)).astype(int) - _COMMON
        own = (topic * _TOPIC_WORDS + rng.integers(0, _TOPIC_WORDS, words)) * _APART % len(_WORDS)
        return " ".join(_WORDS[word] for word in np.where(rng.random(words) < 0.5, own, frequent))

    def _names(self, count: int, rng: np.random.Generator) -> tuple[str, ...]:
        """Of 160,000 people."""
        numbers = rng.integers(0, 400, (count, 2))
        return tuple(f"{_WORDS[first]} {_WORDS[1000 + last]}".title() for first, last in numbers)

    @cached_property
    def _shares(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Of the topics: some are ten times as frequent as others."""
        sizes = np.exp(np.random.default_rng(self._seed).normal(0, 0.8, _TOPICS))
        shares: np.ndarray[tuple[int], np.dtype[np.float64]] = sizes / sizes.sum()
        return shares

    @cached_property
    def _genres(self) -> list[list[str]]:
        """The genres of each topic, the most frequent one of its items first."""
        rng = np.random.default_rng(self._seed + 1)
        return [[str(genre) for genre in rng.choice([*GENRES], 4, replace=False, p=_shares(GENRES))] for _ in range(_TOPICS)]

    @cached_property
    def _scales(self) -> Vector:
        variances = (np.arange(self.dimension) + 1.0) ** -_DECAY
        scales: Vector = np.sqrt(variances / variances.sum()).astype(np.float32)
        return scales

    @cached_property
    def _centres(self) -> Matrix:
        drawn = np.random.default_rng(self._seed + 2).standard_normal((_TOPICS, self.dimension))
        centres: Matrix = (drawn * self._scales).astype(np.float32)
        return centres

    @cached_property
    def _rotation(self) -> Matrix:
        """Spreads the directions over all numbers of a vector, as an encoder does."""
        drawn = np.random.default_rng(self._seed + 3).standard_normal((self.dimension, self.dimension))
        rotation: Matrix = np.linalg.qr(drawn)[0].astype(np.float32)
        return rotation


def _shares(counts: dict[str, int]) -> list[float]:
    return [count / sum(counts.values()) for count in counts.values()]
