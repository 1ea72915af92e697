"""How long filtered searches take on the embedded engine: selective and unselective filters, nested ones, and with counts.

    python -m bench.filters --items 10000 100000 --rounds 200
    python -m bench.filters --quick

Vectors are random and facts are drawn: no model is loaded, and what is measured is the index alone. Times are of one search at a time.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from matinee.cli.errors import run_main
from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import Index
from matinee.index.types import TEXT, DenseQuery, Manifest, Point, Search, item_payload
from matinee.items import Item

DIMENSION = 384
ATTRIBUTES = DEFAULT_ATTRIBUTES | {
    "colour": Attribute(type="keyword", source="extra.colour", facet=True),
    "price": Attribute(type="float", source="numbers.price"),
    "released": Attribute(type="datetime", source="extra.released"),
    "about": Attribute(type="text", source="overview"),
}
FILTERS: dict[str, ItemFilter] = {
    "none": ItemFilter(),
    "half of them": ItemFilter(price={"lt": 50}),
    "one in a hundred": ItemFilter(price={"lt": 1}),
    "one in a thousand": ItemFilter(price={"lt": 1}, colour=["colour 3"]),
    "or, not, a date": ItemFilter(**{"or": [{"colour": ["colour 1", "colour 2"]}, {"not": {"released": {"gte": "2005-01-01"}}}]}),
    "a word": ItemFilter(about={"match": "word7"}),
}


def point(i: int, rng: np.random.Generator) -> Point:
    item = Item(
        id=str(i),
        title=f"Thing {i}",
        overview=" ".join(f"word{n}" for n in rng.integers(0, 500, 20)),
        numbers={"price": float(rng.random() * 100), "votes": float(rng.integers(0, 10_000))},
        extra={"colour": f"colour {rng.integers(0, 10)}", "released": f"{rng.integers(2000, 2025)}-05-01"},
    )
    vector = rng.standard_normal(DIMENSION).astype(np.float32)
    return Point(item.uid("bench"), item_payload(item, origin="file", revision=0), {TEXT: vector / np.linalg.norm(vector)})


async def time_calls(rounds: int, call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Milliseconds: p50 and p95."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1000)
    return median(times), quantiles(times, n=20)[-1]


async def measure(index: Index, rounds: int, rng: np.random.Generator) -> None:
    print(f"| {'filter':17} | items | search p50 / p95 ms | with counts of colour p50 / p95 ms |")
    print("| --- | --- | --- | --- |")
    for name, condition in FILTERS.items():

        async def search(condition: ItemFilter = condition) -> None:
            await index.search([Search(DenseQuery(rng.standard_normal(DIMENSION).astype(np.float32)), 10, filter=condition)])

        async def search_and_count(condition: ItemFilter = condition, search: Callable[[], Awaitable[None]] = search) -> None:
            await search()
            await index.facets("colour", filter=condition)

        await search()
        alone, both = await time_calls(rounds, search), await time_calls(rounds, search_and_count)
        passing = await index.count(condition)
        print(f"| {name:17} | {passing:,} | {alone[0]:.2f} / {alone[1]:.2f} | {both[0]:.2f} / {both[1]:.2f} |")


async def fill_and_measure(items: int, rounds: int) -> None:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as home:
        store = EdgeStore(Path(home), "bench")
        manifest = Manifest(
            version="v1", catalogue="bench", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: DIMENSION}, attributes=ATTRIBUTES
        )
        index = await store.create(manifest)
        start = time.perf_counter()
        for at in range(0, items, 1000):
            await index.upsert([point(i, rng) for i in range(at, min(items, at + 1000))])
        print(f"{items:,} items written in {time.perf_counter() - start:.1f} s")
        await measure(index, rounds, rng)
        await index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000], help="items in the index, a table for each")
    parser.add_argument("--rounds", type=int, default=200, help="searches for each row of the table")
    parser.add_argument("--quick", action="store_true", help="1,000 items and 20 searches: whether it runs")
    options = parser.parse_args()
    for items in [1000] if options.quick else options.items:
        asyncio.run(fill_and_measure(items, 20 if options.quick else options.rounds))


if __name__ == "__main__":
    run_main(main)
