"""Groups: their meaning in Python against the embedded engine and the client's in-memory mode, and what lies beyond the best candidates."""

import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from matinee.errors import MatineeError
from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.edge.store import EdgeStore
from matinee.index.item_vector import complete_points
from matinee.index.protocols import Index, IndexStore
from matinee.index.qdrant.store import QdrantStore
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.types import BM25, TEXT, DenseQuery, Hit, Manifest, Point, PopularQuery, Search, item_payload
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend.groups import MAX_ROUNDS, GroupSearch, group_hits, run_rounds
from matinee.recommend.options import MAX_CANDIDATES, RankingOptions, sort_hits
from matinee.recommend.queries import Example, ExampleQuery, Query, RankedItems, TextQuery
from matinee.recommend.recommender import Recommender
from matinee.settings.index import IndexSettings
from matinee.settings.tree import SearchSettings
from matinee.vectors import Sparse, Vector

ATTRIBUTES = DEFAULT_ATTRIBUTES | {
    "maker": Attribute(type="keyword", source="extra.maker", many=True),
    "stock": Attribute(type="integer", source="numbers.stock"),
    "new": Attribute(type="boolean", source="extra.new"),
}
MANIFEST = Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4}, attributes=ATTRIBUTES)
NEAREST = np.array([1, 0, 0, 0], np.float32)
LIMIT = 5


def uid(i: int) -> str:
    return f"00000000-0000-0000-0000-{i:012}"


def vector(i: int) -> Vector:
    """Further from `NEAREST` the greater `i` is."""
    made: Vector = np.array([1, 0, 0, i / 100], np.float32) / math.hypot(1, i / 100)
    return made


def made_of(ids: str) -> list[Hit]:
    """Hits with falling scores, each of the maker that its letter names."""
    return [Hit(uid(i), 1 - i / 100, {"attributes": {"maker": [letter]}}) for i, letter in enumerate(ids)]


def test_groups_are_in_the_order_of_their_best() -> None:
    hits = [Hit("d", 0.9, {"attributes": {"maker": ["A", "B"]}}), Hit("c", 0.8, {}), *made_of("BA")]
    for limit, expected in ((1, ["d", "0"]), (2, ["d1", "0"])):
        groups = group_hits(hits, RankingOptions(group_by="maker", group_limit=limit), ATTRIBUTES)
        assert ["".join(hit.id[-1] for hit in group) for group in groups] == expected


@pytest.mark.parametrize(("limit", "expected"), [(1, MAX_ROUNDS), (2, 2 * MAX_ROUNDS)])
def test_the_rounds_are_limited(limit: int, expected: int) -> None:
    """Also where each finds as many hits as it may, and never enough groups nor items of one."""
    options = RankingOptions(group_by="maker", group_limit=limit)
    rounds = GroupSearch(Search(PopularQuery(), 2), options, ATTRIBUTES).further_hits(made_of("aa"), 20)
    answers = iter([None, *map(made_of, ["bc", "de", "fg", "hi", "jk", *["zz"] * 10])])
    for _ in range(expected):
        rounds.send(next(answers))
    with pytest.raises(StopIteration) as done:
        rounds.send(next(answers))
    assert "".join(hit.payload["attributes"]["maker"][0] for hit in done.value.value) == "bcdefghijk"


@pytest.mark.parametrize(
    ("options", "hits"),
    [
        (RankingOptions(group_by="maker"), "a"),
        (RankingOptions(group_by="maker"), "ab"),
        (RankingOptions(group_by="maker", min_score=0.995), "aa"),
        (RankingOptions(group_by="maker", sort=(("year", "asc"),)), "aa"),
    ],
)
def test_no_round_is_asked_where_none_can_help(options: RankingOptions, hits: str) -> None:
    """All items are there, all groups are, no other item has the least score, or the order is not that of the scores."""
    rounds = GroupSearch(Search(PopularQuery(), 2), options, ATTRIBUTES).further_hits(made_of(hits), 2)
    with pytest.raises(StopIteration) as done:
        rounds.send(None)
    assert done.value.value == []


items = st.builds(
    lambda **facts: Item(title="x", kind="tool", **facts),
    extra=st.fixed_dictionaries(
        {},
        optional={
            "maker": st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=3, unique=True).map(tuple),
            "new": st.sampled_from(["yes", "no"]),
        },
    ),
    numbers=st.fixed_dictionaries({}, optional={"stock": st.sampled_from([0.0, 1.0, 2.0, 7.0])}),
)
pages = st.builds(
    lambda k, min_score, **options: (k, RankingOptions(min_score=min_score, **options)),
    k=st.integers(1, 4),
    min_score=st.none() | st.floats(0.98, 1),
    offset=st.integers(0, 3),
    group_by=st.sampled_from(["maker", "stock", "new"]),
    group_limit=st.integers(1, 4),
)


def points(catalogue: list[Item]) -> list[Point]:
    payloads = [item_payload(item, origin="file", revision=0) for item in catalogue]
    return [Point(uid(i), payload | {"popularity": float(100 - i)}, {TEXT: vector(i)}) for i, payload in enumerate(payloads)]


def page_of(hits: list[Hit], k: int, options: RankingOptions) -> list[list[str]]:
    start = options.offset or 0
    return [[hit.id for hit in group] for group in group_hits(hits, options, ATTRIBUTES)[start : start + k]]


async def check(path: Path, catalogue: list[Item], asked: list[tuple[int, RankingOptions]], *kinds: Any) -> None:
    """No engine looks at more than `LIMIT` items at once, and all answer like one that ranks the whole catalogue."""
    client = AsyncQdrantClient(":memory:")
    made: list[IndexStore] = [EdgeStore(path, "test"), *(kind(IndexSettings(), "test", client=client) for kind in kinds)]
    stored = complete_points(points(catalogue), MANIFEST)
    ranked = [Hit(point.id, float(vector(i) @ NEAREST), point.payload) for i, point in enumerate(stored)]
    try:
        for store in made:
            index = await store.create(MANIFEST)
            await index.upsert(stored)
            for query in (DenseQuery(NEAREST), PopularQuery()):
                search = Search(query, LIMIT, filter=ItemFilter(kind=["tool"]))
                [hits] = await index.search([search])
                scores = [score_by(hit, query) for hit in ranked]
                runs = [GroupSearch(search, options, ATTRIBUTES).further_hits(hits, k) for k, options in asked]
                for (k, options), further in zip(asked, await run_rounds(index, runs), strict=True):
                    answered = page_of([*sort_hits(hits, options, ATTRIBUTES), *further], k, options)
                    assert answered == page_of(sort_hits(scores, options, ATTRIBUTES), k, options), (type(store).__name__, k, options)
            await index.close()
    finally:
        await client.close()
        shutil.rmtree(path)


def score_by(hit: Hit, query: object) -> Hit:
    return Hit(hit.id, hit.payload["popularity"] if isinstance(query, PopularQuery) else hit.score, hit.payload)


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
# With as many items, the rounds reach all of them, however their values lie.
CATALOGUES = st.lists(items, min_size=1, max_size=LIMIT * MAX_ROUNDS)
PAGES = st.lists(pages, min_size=12, max_size=12)


@settings(max_examples=4, **QUIET)
@given(catalogue=CATALOGUES, asked=PAGES)
async def test_groups_are_those_of_the_whole_catalogue(tmp_path_factory: Any, catalogue: list[Item], asked: Any) -> None:
    await check(tmp_path_factory.mktemp("groups"), catalogue, asked, QdrantStore)


@pytest.mark.full
@settings(max_examples=40, **QUIET)
@given(catalogue=CATALOGUES, asked=PAGES)
async def test_so_are_many_more(tmp_path_factory: Any, catalogue: list[Item], asked: Any) -> None:
    """In short: the test before."""
    await check(tmp_path_factory.mktemp("groups"), catalogue, asked, QdrantStore, TenantStore)


async def open_lamps(store: IndexStore) -> Index:
    """More English lamps than are candidates, three French ones behind them, and a Japanese one at each end."""
    languages = ["ja", *["en"] * MAX_CANDIDATES, "fr", "ja", "fr", "fr"]
    catalogue = [Item(title="lamp", kind="tool", language=language) for language in languages]
    words = Bm25Encoder().document("lamp")
    index = await store.create(MANIFEST)
    await index.upsert(
        [
            replace(point, sparse={BM25: Sparse(words.indices, [value * (1 - i / 10_000) for value in words.values])})
            for i, point in enumerate(points(catalogue))
        ]
    )
    return index


@pytest.mark.parametrize("kind", ["edge", pytest.param("qdrant", marks=pytest.mark.full)])
async def test_a_group_beyond_the_best_candidates_is_found(kind: str, tmp_path: Path) -> None:
    client = AsyncQdrantClient(":memory:")
    store = EdgeStore(tmp_path, "test") if kind == "edge" else QdrantStore(IndexSettings(), "test", client=client)
    index = await open_lamps(store)
    options = RankingOptions(group_by="language", group_limit=2, facets=("language",))
    hybrid = TextQuery("lamp", NEAREST, "hybrid", k=3, options=options)
    queries: list[Query] = [hybrid, replace(hybrid, diversity=0.5), ExampleQuery((Example(id=uid(5)),), k=3, options=options)]
    try:
        one, diverse, near = map(ranked_items, await Recommender(index, SearchSettings()).answer(queries))
        # Its scores are ranks, of one list only.
        [fused] = map(ranked_items, await Recommender(index, SearchSettings(fusion="rrf")).answer([hybrid]))
    finally:
        await index.close()
        await client.close()
    assert groups(one) == [("ja", 0), ("ja", 1002), ("en", 1), ("en", 2), ("fr", 1001), ("fr", 1003)]
    # Counts are of the best 1,000, whatever is found beyond them.
    assert one.facets == {"language": [("en", MAX_CANDIDATES - 1), ("ja", 1)]}
    assert {group for group, _ in groups(diverse) + groups(fused)} == {"ja", "en"}
    assert Counter(group for group, _ in groups(near)) == {"ja": 2, "en": 2, "fr": 2}


def ranked_items(answer: RankedItems | MatineeError) -> RankedItems:
    assert isinstance(answer, RankedItems), answer
    return answer


def groups(answer: RankedItems) -> list[tuple[str, int]]:
    return [(card["group"], int(card["id"][-12:])) for card in orjson.loads(answer.items)]
