"""Versions of a few films under two encoders: what the tests of the active index share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from matinee.index.active import ActiveIndex, new_revision
from matinee.index.api_writes import IndexWrites
from matinee.index.build import Build
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.index.types import DenseQuery, Manifest, Search
from matinee.items import Item
from matinee.models.embedder import Embedder


class OtherEncoder:
    """The same encoder under another fingerprint: its vectors are turned, so they mean nothing to the first."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.fingerprint = "f" * 64
        self.dimension = embedder.dimension
        self.model_id = "other"

    def encode(self, texts: Sequence[str], **options: Any) -> Any:
        return np.roll(self._embedder.encode(texts, **options), 7, axis=1)


async def build(store: IndexStore, maker: PointMaker, films: Sequence[Item], active: ActiveIndex | None = None) -> Manifest:
    api = None if active is None else IndexWrites(active.get())
    return (await Build(store, maker, "demo", "test", api).run(films)).manifest


def film(name: str) -> Item:
    return Item(id=name, kind="film", title=f"Film {name}", overview=f"What happened to {name}.")


async def put(active: ActiveIndex, maker: PointMaker, item: Item, **options: Any) -> int:
    points = maker([item], [item.uid("demo")], origin="api", revisions=[new_revision()])
    return (await active.upsert(points, fingerprint=maker.embedder.fingerprint, recipe=maker.recipe, **options)).count


async def get(active: ActiveIndex, item: Item) -> Any:
    [hit] = await active.get().retrieve([item.uid("demo")], vectors=True)
    return hit


async def nearest(active: ActiveIndex, maker: PointMaker, text: str) -> str:
    [vector] = maker.embedder.encode([text])
    [[hit]] = await active.get(maker.embedder.fingerprint).search([Search(DenseQuery(vector), 1)])
    title: str = hit.payload["title"]
    return title
