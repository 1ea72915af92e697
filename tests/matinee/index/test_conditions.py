"""One filter, three ways: its meaning in Python, the embedded engine, and the client's in-memory mode, over random catalogues."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.edge.store import EdgeStore
from matinee.index.item_vector import complete_points
from matinee.index.protocols import Index
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import TEXT, DenseQuery, Manifest, Point, PopularQuery, Scroll, Search, item_payload, tombstone
from matinee.items import Item
from matinee.settings.index import IndexSettings

ATTRIBUTES = DEFAULT_ATTRIBUTES | {
    "colour": Attribute(type="keyword", source="extra.colour", many=True, facet=True),
    "stock": Attribute(type="integer", source="numbers.stock", facet=True),
    "price": Attribute(type="float", source="numbers.price"),
    "new": Attribute(type="boolean", source="extra.new", facet=True),
    "released": Attribute(type="datetime", source="extra.released", many=True),
    "place": Attribute(type="geo", source=("numbers.lat", "numbers.lon")),
    "about": Attribute(type="text", source="overview"),
}
COLOURS = ["red", "Rot", "déjà vu", "0", "true"]
GENRES = ["Drama", "Comedy"]
DATES = ["1999-12-31", "2020-02-29T12:00:00Z", "2020-02-29T13:00:00+01:00", "2024-05-01T00:00:00.5Z"]
WORDS = ["Déjà", "deja", "vu", "Straße", "strasse", "x2"]
MANIFEST = Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4}, attributes=ATTRIBUTES)

optional = lambda strategy: st.none() | strategy  # noqa: E731
extra = st.fixed_dictionaries(
    {},
    optional={
        "colour": st.lists(st.sampled_from(COLOURS), max_size=3).map(tuple) | st.sampled_from(COLOURS),
        "new": st.sampled_from(["true", "no", "perhaps"]),
        "released": st.lists(st.sampled_from([*DATES, "soon"]), min_size=1, max_size=2).map(tuple),
    },
)
numbers = st.fixed_dictionaries(
    {},
    optional={
        "stock": st.sampled_from([-1.0, 0.0, 1.0, 2.0, 2.5]),
        "price": st.sampled_from([0.0, 0.1, 9.99, 1e9]),
        "lat": st.sampled_from([0.0, 48.86, -90.0, 90.0]),
        "lon": st.sampled_from([0.0, 2.35, 179.9, -179.9]),
        "rating": st.sampled_from([1.0, 7.5]),
    },
)
items = st.builds(
    lambda **facts: Item(title="x", **facts),
    kind=st.sampled_from(["film", "book"]),
    year=optional(st.sampled_from([1989, 1990, 2020])),
    genres=st.lists(st.sampled_from(GENRES), max_size=2, unique=True).map(tuple),
    language=optional(st.sampled_from(["fr", "en"])),
    overview=st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join),
    extra=extra,
    numbers=numbers,
)


def operators(values: st.SearchStrategy[Any], *names: str) -> list[st.SearchStrategy[Any]]:
    return [st.fixed_dictionaries({name: st.lists(values, min_size=1, max_size=3)}) for name in names or ("any", "all", "none")]


@st.composite
def ranges(draw: st.DrawFn, limits: list[Any]) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(st.sampled_from(range(len(limits))), min_size=2, max_size=2, unique=True)))
    body = {draw(st.sampled_from(["gte", "gt"])): limits[low], draw(st.sampled_from(["lte", "lt"])): limits[high]}
    kept = draw(st.sampled_from([list(body), list(body)[:1], list(body)[1:]]))
    return {name: body[name] for name in kept}


circles = st.fixed_dictionaries(
    {
        "near": st.fixed_dictionaries(
            {
                "lat": st.sampled_from([0.0, 48.86, -90.0, 90.0]),
                "lon": st.sampled_from([0.0, 2.0, 180.0]),
                "radius_m": st.sampled_from([1.0, 40_000.0, 6e6]),
            }
        )
    }
)
ASKED: dict[str, list[st.SearchStrategy[Any]]] = {
    "colour": [*operators(st.sampled_from([*COLOURS, "blue"])), st.lists(st.sampled_from(COLOURS), min_size=1, max_size=2)],
    "genres": operators(st.sampled_from(GENRES)),
    "language": operators(st.sampled_from(["fr", "xx"]), "any", "none"),
    "kind": operators(st.sampled_from(["film", "game"]), "any"),
    "year": [*operators(st.sampled_from([1990, 2020.0, 1])), ranges([1989, 1989.5, 1990, 2021])],
    "stock": [*operators(st.sampled_from([0, 1, 2])), ranges([-1, 0, 0.5, 2])],
    "price": [ranges([0, 0.1, 5, 9.99, 1e10])],
    "rating": [ranges([1, 7.5, 8])],
    "new": operators(st.booleans()),
    "released": [ranges(sorted(["1999-12-31", "2020-02-29", "2020-02-29T12:00:00Z", "2030-01-01"]))],
    "place": [circles],
    "about": [st.fixed_dictionaries({"match": st.sampled_from(["DEJA", "deja vu!", "strasse x2", "nothing"])})],
}
PRESENCE = [st.fixed_dictionaries({name: st.booleans()}) for name in ("exists", "missing")]
leaves = st.sampled_from(sorted(ASKED)).flatmap(lambda name: st.fixed_dictionaries({name: st.one_of(*ASKED[name], *PRESENCE)}))
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.sampled_from(["and", "or"]).flatmap(lambda name: st.fixed_dictionaries({name: st.lists(inner, min_size=1, max_size=3)})),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
    ),
    max_leaves=6,
).filter(lambda body: depth(body) <= 5)


def depth(body: Any) -> int:
    if isinstance(body, list):
        return max(map(depth, body), default=0)
    if not isinstance(body, dict):
        return 0
    return max((depth(value) + (name in ("and", "or", "not")) for name, value in body.items()), default=0)


def points(catalogue: list[Item]) -> list[Point]:
    payloads = [item_payload(item, origin="file", revision=0) for item in catalogue]
    made = [
        Point(f"00000000-0000-0000-0000-{i:012}", payload, {TEXT: np.array([1, 0, 0, i], np.float32) / math.hypot(1, i)})
        for i, payload in enumerate(payloads)
    ]
    return [*made, tombstone("00000000-0000-0000-0000-999999999999", revision=1)]


async def answers(index: Index, wanted: ItemFilter, n: int) -> dict[str, Any]:
    searches = [Search(query, n + 1, filter=wanted) for query in (DenseQuery(np.array([1, 0, 0, 0], np.float32)), PopularQuery())]
    dense, popular = [{hit.id for hit in hits} for hits in await index.search(searches)]
    page, _ = await index.scroll(Scroll(limit=n + 1, filter=wanted))
    facets = {name: dict(await index.facets(name, filter=wanted)) for name, one in ATTRIBUTES.items() if one.facet}
    return {"dense": dense, "popular": popular, "page": {hit.id for hit in page}, "count": await index.count(wanted), "facets": facets}


async def check(path: Path, catalogue: list[Item], bodies: list[dict[str, Any]]) -> None:
    stored = complete_points(points(catalogue), MANIFEST)
    client = AsyncQdrantClient(":memory:")
    opened = [await store.create(MANIFEST) for store in (EdgeStore(path, "test"), QdrantStore(IndexSettings(), "test", client=client))]
    try:
        for index in opened:
            await index.upsert(stored)
        for body in bodies:
            wanted = ItemFilter(**body)
            meant = [point for point in stored[:-1] if not wanted.unmet(point.payload, ATTRIBUTES)]
            ids = {point.id for point in meant}
            for index in opened:
                found = await answers(index, wanted, len(stored))
                counted = found.pop("facets")
                assert found == {"dense": ids, "popular": ids, "page": ids, "count": len(ids)}, (body, type(index).__name__)
                for name, counts in counted.items():
                    values = [set(ATTRIBUTES[name].values(point.payload["item"])[0]) for point in meant]
                    assert counts == {value: sum(value in one for one in values) for one in values for value in one}, (body, name)
    finally:
        for index in opened:
            await index.close()
        await client.close()
        shutil.rmtree(path)


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
CATALOGUES = st.lists(items, min_size=1, max_size=12)
BODIES = st.lists(filters, min_size=12, max_size=12)


@settings(max_examples=6, **QUIET)
@given(catalogue=CATALOGUES, bodies=BODIES)
async def test_a_filter_means_the_same_on_every_engine(tmp_path_factory: Any, catalogue: list[Item], bodies: list[dict[str, Any]]) -> None:
    await check(tmp_path_factory.mktemp("congruence"), catalogue, bodies)


@pytest.mark.full
@settings(max_examples=100, **QUIET)
@given(catalogue=CATALOGUES, bodies=BODIES)
async def test_so_do_many_more(tmp_path_factory: Any, catalogue: list[Item], bodies: list[dict[str, Any]]) -> None:
    """In short: the test before."""
    await check(tmp_path_factory.mktemp("congruence"), catalogue, bodies)
