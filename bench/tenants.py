"""How long a search in one of many catalogues takes that share a Qdrant collection, beside a catalogue that is alone in it.

    python -m bench.tenants --catalogues 1 10 100 --items 100
    python -m bench.tenants --url http://HOST:6333

Without a URL it runs in the client's in-memory mode. That mode has no index over payloads or vectors: each search looks at every point of
the collection, so its time grows with all catalogues together. A server has an index by catalogue. Vectors and facts are those of
`bench.filters`.
"""

import argparse
import asyncio
from collections.abc import Sequence

import numpy as np
from qdrant_client import AsyncQdrantClient

from bench.filters import ATTRIBUTES, DIMENSION, point, time_calls
from bench.tables import markdown
from matinee.cli.errors import run_main
from matinee.filters import ItemFilter
from matinee.index.qdrant.connection import connect
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.types import TEXT, DenseQuery, Manifest, Search
from matinee.settings.index import IndexSettings

FILTERS = {"none": ItemFilter(), "one in ten": ItemFilter(colour=["colour 3"])}


async def fill(store: TenantStore, name: str, items: int, rng: np.random.Generator) -> None:
    manifest = Manifest(
        version="v1", catalogue=name, fingerprint="f" * 64, recipe="raw", dimensions={TEXT: DIMENSION}, attributes=ATTRIBUTES, count=items
    )
    index = await store.create(manifest)
    await index.upsert([point(i, rng) for i in range(items)])
    await store.finish(manifest)
    await store.switch("v1")


async def measure(store: TenantStore, rounds: int, rng: np.random.Generator) -> list[str]:
    index = await store.open("v1")
    cells = []
    for condition in FILTERS.values():

        async def search(condition: ItemFilter = condition) -> None:
            [hits] = await index.search([Search(DenseQuery(rng.standard_normal(DIMENSION).astype(np.float32)), 10, filter=condition)])
            if not hits:
                raise RuntimeError("a search found nothing: give the catalogues more items")

        await search()
        cells.append("{:.2f} / {:.2f}".format(*await time_calls(rounds, search)))
    return cells


async def run(url: str | None, catalogues: Sequence[int], items: int, rounds: int) -> None:
    settings = IndexSettings() if url is None else IndexSettings(engine="qdrant", url=url)
    client = AsyncQdrantClient(":memory:") if url is None else connect(settings)
    stores: list[TenantStore] = []
    rng = np.random.default_rng(1)
    rows: list[list[object]] = []
    try:
        for many in sorted(catalogues):
            for n in range(len(stores), many):
                stores.append(TenantStore(settings, f"bench-{n}", client=client))
                await fill(stores[-1], f"bench-{n}", items, rng)
            rows.append([many, f"{many * items:,}", *await measure(stores[0], rounds, rng)])
    finally:
        for store in stores:
            await store.destroy()
        await client.close()
    print(markdown(["catalogues", "items in the collection", *(f"filter: {name}, p50 / p95 ms" for name in FILTERS)], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a Qdrant server; makes catalogues bench-0, bench-1 and so on there, and deletes them")
    parser.add_argument("--catalogues", type=int, nargs="+", default=[1, 10, 100], help="catalogues in the collection, a row for each")
    parser.add_argument("--items", type=int, default=100, help="items of each")
    parser.add_argument("--rounds", type=int, default=100, help="searches for each figure")
    parser.add_argument("--quick", action="store_true", help="two catalogues and 5 searches: whether it runs")
    options = parser.parse_args()
    if options.quick:
        options.catalogues, options.rounds = [1, 2], 5
    asyncio.run(run(options.url, options.catalogues, options.items, options.rounds))


if __name__ == "__main__":
    run_main(main)
