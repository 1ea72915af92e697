"""Items -> points, and points into an index: the stages of a build, as functions.

The loop of one process calls them (`matinee.index.build`), and so do the workers of a cluster. Does not know versions.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from matinee.errors import IndexUnreachableError
from matinee.index.isolation import Isolate, isolate
from matinee.index.protocols import Index
from matinee.index.types import BM25, TEXT, TITLE, Payload, Point, item_payload
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder, title_trigrams
from matinee.models.types import Encoder
from matinee.settings.index import FactWeights, Recipe
from matinee.text import templates
from matinee.text.recipe import ItemTexts
from matinee.vectors import Matrix, Vector

BATCH = 256
"""Points a write: a Qdrant server takes them well, and a kill loses little."""
WRITE_PATIENCE_S = 300.0
"""For a server that is out of reach: a restart of it should not cost the hours that a build took so far."""

Origin = Literal["file", "api"]
DescribeItems = Callable[[Sequence[Item]], Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that become points together, their index ids, and the texts that are embedded."""

    ids: Sequence[str]
    items: Sequence[Item]
    descriptions: Sequence[str | None]
    texts: ItemTexts

    def part(self, places: Sequence[int], recipe: Recipe) -> "Batch":
        """The items at these places alone."""
        if len(places) == len(self.ids):
            return self
        items, ids = [self.items[place] for place in places], [self.ids[place] for place in places]
        return described_batch(items, ids, [self.descriptions[place] for place in places], recipe)


class PointMaker:
    """Items -> points, under one encoder and one recipe; `describe` writes the descriptions that the recipe wants.

    A call makes them all in one go. A build takes the steps apart: `encode` may run in another thread.
    """

    def __init__(
        self,
        embedder: Encoder,
        recipe: Recipe,
        *,
        language: str | None = "english",
        describe: DescribeItems | None = None,
        facts: FactWeights = FactWeights(),  # noqa: B008  it is frozen
    ) -> None:
        self.embedder = embedder
        self.recipe = recipe
        self.facts = facts
        self._bm25 = Bm25Encoder(language)
        self._describe = describe

    def __call__(self, items: Sequence[Item], ids: Sequence[str], *, origin: Origin, revisions: Sequence[int]) -> list[Point]:
        batch = self.batch(items, ids)
        return self.points(batch, self.encode(batch), origin=origin, revisions=revisions)

    def batch(self, items: Sequence[Item], ids: Sequence[str]) -> Batch:
        """Describes the items where the recipe wants it."""
        return described_batch(items, ids, self.describe(items), self.recipe)

    def describe(self, items: Sequence[Item]) -> Sequence[str | None]:
        """The items' descriptions, None where the recipe wants none."""
        if self.recipe == "raw" or self._describe is None:
            return [None] * len(items)
        return self._describe(items)

    def encode(self, batch: Batch) -> Matrix:
        """float32[items, d]"""
        return batch.texts.join(self.embedder.encode(batch.texts.flat, kind="document"))

    def points(self, batch: Batch, vectors: Matrix, *, origin: Origin, revisions: Sequence[int]) -> list[Point]:
        return batch_points(batch, vectors, origin=origin, revisions=revisions, recipe=self.recipe, bm25=self._bm25)


def chunks(items: Iterable[Item], catalogue: str, taken: Container[str]) -> Iterator[dict[str, Item]]:
    """The items by their index ids, `BATCH` at a time, without those whose ids are `taken`."""
    numbered = ((uid, item) for item in items if (uid := item.uid(catalogue)) not in taken)
    while chunk := dict(islice(numbered, BATCH)):
        yield chunk


def described_batch(items: Sequence[Item], ids: Sequence[str], descriptions: Sequence[str | None], recipe: Recipe) -> Batch:
    """A batch of items whose descriptions are there, or not wanted."""
    return Batch(ids, items, descriptions, ItemTexts(items, descriptions, recipe))


def describe_usable(
    ids: Sequence[str], items: Sequence[Item], describe: DescribeItems, isolate: Isolate = isolate
) -> tuple[dict[int, str | None], dict[int, str]]:
    """The descriptions of the items by their places, and for each item that `describe` fails at, the reason."""
    parts, reasons = isolate(ids, lambda places: describe([items[place] for place in places]))
    texts = {place: text for places, some in parts for place, text in zip(places, some, strict=True)}
    return texts, {place: f"the enhancer failed: {reason}" for place, reason in reasons.items()}


def encode_usable(
    batch: Batch, encode: Callable[[Batch], Matrix], recipe: Recipe, isolate: Isolate = isolate
) -> tuple[list[int], Matrix, dict[int, str]]:
    """The places of the batch that have vectors, these (float32[places, d]), and for each item that `encode` fails at, the reason."""
    parts, reasons = isolate(batch.ids, lambda places: encode(batch.part(places, recipe)))
    matrices = [vectors for _, vectors in parts]
    vectors = matrices[0] if len(matrices) == 1 else np.concatenate(matrices) if matrices else np.empty((0, 0), np.float32)
    return (
        [place for places, _ in parts for place in places],
        vectors,
        {p: f"the encoder failed: {reason}" for p, reason in reasons.items()},
    )


def batch_points(
    batch: Batch, vectors: Matrix, *, origin: Origin, revisions: Sequence[int], recipe: Recipe, bm25: Bm25Encoder
) -> list[Point]:
    """The points of a batch with its vectors. Their ids are made of the items: writing a batch twice is writing it once."""
    payloads = [
        item_payload(item, origin=origin, revision=revision, description=description)
        for item, revision, description in zip(batch.items, revisions, batch.descriptions, strict=True)
    ]
    return [
        item_point(id, item, vector, payload, recipe=recipe, bm25=bm25)
        for id, item, vector, payload in zip(batch.ids, batch.items, vectors, payloads, strict=True)
    ]


async def write_points(index: Index, points: Sequence[Point]) -> None:
    """Write points; a server that is out of reach for a while is asked again, with growing pauses."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(IndexUnreachableError),
        wait=wait_random_exponential(multiplier=0.5, min=0.25, max=30),
        stop=stop_after_delay(WRITE_PATIENCE_S),
        reraise=True,
    )
    await retrying(index.upsert, points)


def item_point(id: str, item: Item, vector: Vector | None, payload: Payload, *, recipe: Recipe, bm25: Bm25Encoder) -> Point:
    """An item's point: its dense vector (None: not here), the terms of its text and of the people in it, its title's trigrams."""
    text = templates.embedded_text(item, payload.get("description"), recipe, template=templates.SPARSE_TEMPLATE)
    terms = bm25.document(" ".join([text, *item.names()]))
    return Point(id, payload, {} if vector is None else {TEXT: vector}, {BM25: terms, TITLE: title_trigrams(item.title)})
