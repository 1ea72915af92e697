"""Catalogues to ingest, and what an index has of them. Does not know pytest."""

import csv
from pathlib import Path
from typing import Any

from matinee.index.protocols import IndexStore
from matinee.index.types import Scroll

WORDS = ("quiet", "drama", "brothers", "lighthouse", "keeper", "storm", "island", "heist", "king", "winter")
Points = dict[str, tuple[Any, Any, Any]]


def write_catalogue(path: Path, count: int, words: int = 12) -> Path:
    """A CSV file of so many films, whose overviews have so many words of the tiny encoder's."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "title", "year", "genres", "overview"))
        for number in range(count):
            overview = " ".join(WORDS[(number // (place + 1) + place * 7) % len(WORDS)] for place in range(words))
            rows.writerow((number, f"Film {number}", 1950 + number % 70, "Drama|War", overview))
    return path


async def points_of(store: IndexStore, version: str) -> Points:
    """Id -> payload, dense and sparse vectors of all points of a version."""
    index = await store.open(version)
    try:
        page, _ = await index.scroll(Scroll(limit=100_000, deleted=True))
        return {point.id: (point.payload, point.dense, point.sparse) for point in await index.points([hit.id for hit in page])}
    finally:
        await index.close()
