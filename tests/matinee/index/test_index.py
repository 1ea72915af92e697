"""One body for every engine: the embedded one, the client's in-memory mode, and a server where `MATINEE_TEST_QDRANT_URL` names one."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matinee.errors import IndexAbsentError, IndexUnavailableError
from matinee.filters import ItemFilter
from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import (
    BM25,
    ITEM,
    TEXT,
    TITLE,
    DenseQuery,
    Hit,
    HybridQuery,
    Manifest,
    Point,
    PopularQuery,
    RecommendationQuery,
    Scroll,
    Search,
    SparseQuery,
    StoredQuery,
    item_payload,
    tombstone,
)
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder, title_trigrams
from matinee.text.title_keys import title_keys
from matinee.vectors import Sparse

N, D = 200, 16
GENRES = ["Drama", "Comedy", "Horror", "Science Fiction"]
WORDS = ["space", "love", "murder", "train", "robot", "winter", "island", "king", "dream", "war"]
_rng = np.random.default_rng(7)


def unit(*shape: int) -> np.ndarray:
    vectors = _rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_item(i: int) -> Item:
    numbers = {"votes": float(1000 + 7 * i), **({"rating": i % 100 / 10} if i % 5 else {})}
    return Item(
        id=str(i),
        kind="book" if i % 4 == 0 else "film",
        title=f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {i}",
        year=None if i % 11 == 0 else 1950 + i % 70,
        genres=tuple(dict.fromkeys([GENRES[i % 4], GENRES[i // 4 % 4]])) if i % 13 else (),
        language=["en", "fr", "ja"][i % 3],
        numbers=numbers,
    )


ITEMS = [make_item(i) for i in range(N)]
IDS = [item.uid("test") for item in ITEMS]
DENSE, SECOND = unit(N, D), unit(N, 8)
BM = Bm25Encoder()
QUERY = unit(D)
WORD_QUERY = BM.query("space robot war")


def make_point(i: int) -> Point:
    words = BM.document(f"{ITEMS[i].title} " + " ".join(WORDS[j] for j in range(10) if (i >> j) & 1))
    # No two scores are equal, whose order would be the engine's own and decide ranks in a fusion.
    words = Sparse(words.indices, [value * (1 + i / 1000) for value in words.values])
    return Point(
        IDS[i],
        item_payload(ITEMS[i], origin="api" if i % 10 == 0 else "file", revision=i),
        {TEXT: DENSE[i], ITEM: SECOND[i]},
        {BM25: words, TITLE: title_trigrams(ITEMS[i].title)},
    )


POINTS = [make_point(i) for i in range(N)]
PAYLOADS = {point.id: point.payload for point in POINTS}


def manifest(version: str = "v1") -> Manifest:
    return Manifest(
        version=version, catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: D, ITEM: 8}, count=N, titles=True
    )


@pytest.fixture
async def index(any_store: IndexStore) -> AsyncIterator[Index]:
    opened = await any_store.create(manifest())
    await opened.upsert(POINTS)
    yield opened
    await opened.close()


async def ids(index: Index, search: Search) -> list[str]:
    return [hit.id for hit in (await index.search([search]))[0]]


def brute(vector: np.ndarray, passes: ItemFilter = ItemFilter(), exclude: frozenset[str] = frozenset()) -> list[tuple[str, float]]:
    scores = [(IDS[i], float(DENSE[i] @ vector)) for i in range(N) if IDS[i] not in exclude and not passes.unmet(PAYLOADS[IDS[i]])]
    return sorted(scores, key=lambda pair: -pair[1])


async def test_nearest_is_exact_and_carries_payload_and_vector(index: Index) -> None:
    hits = (await index.search([Search(DenseQuery(QUERY), 10, with_vectors=True)]))[0]
    expected = brute(QUERY)[:10]
    assert [hit.id for hit in hits] == [id for id, _ in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-5)
    for hit in hits:
        assert hit.payload == PAYLOADS[hit.id] | {"titles": title_keys(hit.payload["title"])}
        assert hit.vector is not None
        assert hit.vector.dtype == np.float32
        np.testing.assert_allclose(hit.vector, DENSE[IDS.index(hit.id)], atol=1e-6)


async def test_a_list_of_searches_answers_like_each_alone(index: Index) -> None:
    searches = [
        Search(DenseQuery(QUERY), 5, with_payload=False),
        Search(DenseQuery(unit(8), using=ITEM), 5, exact=True),
        Search(SparseQuery(WORD_QUERY), 5),
        Search(HybridQuery(QUERY, WORD_QUERY), 5),
        Search(RecommendationQuery([DENSE[0], DENSE[1]], [DENSE[2]]), 5),
        Search(RecommendationQuery([DENSE[0]], [DENSE[2]], strategy="best"), 5, exclude=frozenset(IDS[:3])),
        Search(PopularQuery(), 5),
    ]
    together = await index.search(searches)
    apart = [(await index.search([search]))[0] for search in searches]
    assert [[hit.id for hit in hits] for hits in together] == [[hit.id for hit in hits] for hits in apart]
    assert all(len(hits) == 5 for hits in together)
    assert all(hit.payload == {} for hit in together[0])
    assert await index.search([]) == []


@pytest.mark.parametrize("fusion", ["linear", "rrf", "dbsf"])
async def test_hybrid_searches_of_one_list_have_the_scores_of_each_alone(index: Index, fusion: Literal["linear", "rrf", "dbsf"]) -> None:
    """Also where the embedded engine is given one's sparse list first, and the other's dense one."""
    queries = [HybridQuery(vector, WORD_QUERY, fusion, weights=(1.0, 0.3), prefetch=40) for vector in unit(3, D)]
    searches = [Search(query, 10) for query in (*queries, *queries[1:])]
    together = await index.search(searches)
    alone = [(await index.search([search]))[0] for search in searches]
    assert [[hit.id for hit in hits] for hits in together] == [[hit.id for hit in hits] for hits in alone]
    for hits, expected in zip((*together, *together[1:3]), (*alone, *together[3:]), strict=True):
        assert len(hits) == 10
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in expected], rtol=1e-6)


async def test_similar_by_id_is_similar_by_its_vector(index: Index) -> None:
    if not index.searches_by_id:
        with pytest.raises(TypeError, match="takes vectors only"):
            await index.search([Search(StoredQuery(IDS[0]), 3)])
        return
    wanted = ItemFilter(kind=("film",))
    for using, vectors in ((TEXT, DENSE), (ITEM, SECOND)):
        asked: list[Search] = [
            Search(query, 10, filter=wanted, exclude=frozenset({IDS[3]}), with_vectors=True)
            for query in (StoredQuery(IDS[3], using), DenseQuery(vectors[3], using))
        ]
        by_id, by_vector = await index.search(asked)
        assert [hit.id for hit in by_id] == [hit.id for hit in by_vector]
        np.testing.assert_allclose([hit.score for hit in by_id], [hit.score for hit in by_vector], atol=1e-5)
    await index.upsert([tombstone(IDS[3], revision=N)])
    for gone in (IDS[3], str(uuid.UUID(int=0))):
        with pytest.raises((ValueError, IndexAbsentError, IndexUnavailableError)):
            await index.search([Search(StoredQuery(gone), 3)])


async def test_an_exact_title_is_a_keyword(index: Index) -> None:
    keys = tuple(title_keys(ITEMS[42].title.upper()))
    [hits] = await index.search([Search(PopularQuery(), 5, titles=keys)])
    assert [hit.id for hit in hits] == [IDS[42]]
    await index.upsert([tombstone(IDS[42], revision=N)])
    assert await index.search([Search(PopularQuery(), 5, titles=keys)]) == [[]]


async def test_exclude_and_filter_hold_together(index: Index) -> None:
    wanted = ItemFilter(kind=("film",), genres=("Drama",), year={"gte": 1960})
    few = frozenset([*(id for id, _ in brute(QUERY)[:5]), "not-an-id"])
    many = frozenset(id for id, _ in brute(QUERY)[:150])
    for exclude in (few, many):
        found = await ids(index, Search(DenseQuery(QUERY), 8, filter=wanted, exclude=exclude))
        assert found == [id for id, _ in brute(QUERY, wanted, exclude)[:8]]


RANGES = st.none() | st.builds(
    lambda a, b: {"gte": min(a, b), "lte": max(a, b)}, *[st.floats(1940, 2030).map(lambda x: round(x, 1)) for _ in range(2)]
)
FILTERS = st.builds(
    ItemFilter,
    kind=st.lists(st.sampled_from(["film", "book", "game"]), max_size=2),
    genres=st.lists(st.sampled_from(GENRES), max_size=2),
    genres_all=st.lists(st.sampled_from(GENRES), max_size=2),
    genres_none=st.lists(st.sampled_from(GENRES), max_size=2),
    language=st.lists(st.sampled_from(["en", "fr", "xx"]), max_size=2),
    year=RANGES | st.just({}) | st.just({"gte": 1960}),
    rating=st.sampled_from([None, {"gte": 5}, {"lte": 2.5}, {"gte": 3, "lte": 3}]),
    votes=st.sampled_from([None, {"gte": 1500}, {"lte": 1007}, {"gte": 1500.5, "lte": 2000}]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=FILTERS)
async def test_filters_mean_what_item_filter_says(index: Index, wanted: ItemFilter) -> None:
    expected = {id for id, payload in PAYLOADS.items() if not wanted.unmet(payload)}
    assert await index.count(wanted) == len(expected)
    assert set(await ids(index, Search(DenseQuery(QUERY), N, filter=wanted, with_payload=False))) == expected


async def test_popular_is_by_popularity_with_its_value_as_score(index: Index) -> None:
    hits = (await index.search([Search(PopularQuery(), 3, filter=ItemFilter(kind=("film",)), exclude=frozenset([IDS[199]]))]))[0]
    assert [hit.id for hit in hits] == [IDS[198], IDS[197], IDS[195]]
    assert [hit.score for hit in hits] == [1000 + 7 * i for i in (198, 197, 195)]
    bare = (await index.search([Search(PopularQuery(), 3, with_payload=False)]))[0]
    assert [(hit.score, hit.payload) for hit in bare] == [(1000.0 + 7 * i, {}) for i in (199, 198, 197)]


async def test_a_tombstone_is_stored_and_never_answered(index: Index) -> None:
    best = brute(QUERY)[0][0]
    await index.upsert([tombstone(best, revision=900), tombstone(IDS[199], revision=901)])
    for query in (
        DenseQuery(QUERY),
        HybridQuery(QUERY, WORD_QUERY),
        RecommendationQuery([QUERY], strategy="best"),
        SparseQuery(WORD_QUERY),
        PopularQuery(),
    ):
        found = await ids(index, Search(query, N))
        assert found
        assert not {best, IDS[199]} & set(found)
    assert await index.count() == N - 2
    assert sum(count for _, count in await index.facets("kind")) == N - 2
    assert sum(count for _, count in await index.facets("origin")) == N - 2
    assert await index.present([best, IDS[0], "no id"]) == {IDS[0]}
    gone = (await index.retrieve([best]))[0]
    assert gone == Hit(best, 0.0, {"origin": "api", "revision": 900, "deleted": True})
    assert await index.max_revision() == 901
    assert len((await index.scroll(Scroll(limit=N)))[0]) == N - 2
    assert len((await index.scroll(Scroll(limit=N, deleted=True)))[0]) == N
    assert {hit.id for hit in (await index.scroll(Scroll(limit=N, deleted=True, since=500)))[0]} == {best, IDS[199]}


async def test_scroll_pages_through_everything_once_by_id(index: Index) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await index.scroll(Scroll(limit=64, after=cursor, vectors=True))
        seen += [hit.id for hit in page]
        assert all(hit.vector is not None for hit in page)
        if cursor is None:
            break
    assert seen == sorted(IDS)
    api, _ = await index.scroll(Scroll(limit=N, origin="api", since=50, filter=ItemFilter(kind=("book",))))
    assert {hit.id for hit in api} == {IDS[i] for i in range(51, N) if i % 10 == 0 and i % 4 == 0}
    with pytest.raises(ValueError, match="cursor"):
        await index.scroll(Scroll(limit=1, after="nonsense"))


async def test_scroll_finds_what_waits_for_its_vectors(index: Index) -> None:
    waiting = Point(POINTS[4].id, POINTS[4].payload | {"pending": True}, {}, POINTS[4].sparse)
    await index.upsert([waiting])
    assert [hit.id for hit in (await index.scroll(Scroll(limit=N, pending=True)))[0]] == [IDS[4]]
    assert (await index.scroll(Scroll(limit=N, pending=True, since=4)))[0] == []
    assert await index.count() == N
    assert IDS[4] in await ids(index, Search(SparseQuery(title_trigrams(ITEMS[4].title), using=TITLE), 3))
    assert IDS[4] not in await ids(index, Search(DenseQuery(QUERY), N))


async def test_retrieve_keeps_the_order_and_says_none(index: Index) -> None:
    hits = await index.retrieve([IDS[3], "nonsense", str(uuid.uuid4()), IDS[1], IDS[3]])
    assert [hit and hit.id for hit in hits] == [IDS[3], None, None, IDS[1], IDS[3]]
    assert await index.retrieve([]) == []


async def test_points_can_be_written_again_as_they_are(index: Index, any_store: IndexStore) -> None:
    copies = await index.points([IDS[5], "nonsense", IDS[6]])
    assert {copy.id for copy in copies} == {IDS[5], IDS[6]}
    for copy in copies:
        original = POINTS[IDS.index(copy.id)]
        assert copy.payload == original.payload | {"titles": title_keys(original.payload["title"])}
        assert set(copy.dense) == {TEXT, ITEM}
        np.testing.assert_allclose(copy.dense[ITEM], original.dense[ITEM], atol=1e-6)
        for name in (BM25, TITLE):
            stored = dict(zip(copy.sparse[name].indices, copy.sparse[name].values, strict=True))
            assert stored == pytest.approx(dict(zip(original.sparse[name].indices, original.sparse[name].values, strict=True)))
    other = await any_store.create(manifest("v2"))
    await other.upsert([*copies, tombstone(IDS[7], revision=1)])
    assert await other.count() == 2
    assert (await other.points([IDS[7]]))[0].dense == {}
    await other.close()


async def test_an_upsert_replaces_vectors_and_payload(index: Index) -> None:
    changed = replace(POINTS[0], payload={**POINTS[0].payload, "title": "new"}, dense={TEXT: QUERY})
    await index.upsert([changed])
    hit = (await index.search([Search(DenseQuery(QUERY), 1)]))[0][0]
    assert (hit.id, hit.payload["title"], round(hit.score, 5)) == (IDS[0], "new", 1.0)
    assert set((await index.points([IDS[0]]))[0].dense) == {TEXT}
    await index.upsert([])


async def test_facets_count_exactly(index: Index) -> None:
    facets = dict(await index.facets("genres", filter=ItemFilter(kind=("film",))))
    assert facets == {genre: sum(genre in p["genres"] for p in PAYLOADS.values() if p["kind"] == "film") for genre in GENRES}
    assert await index.facets("kind", limit=1) == [("film", 150)]


async def test_mistakes_of_the_caller_are_value_errors(index: Index) -> None:
    with pytest.raises(ValueError, match="no example"):
        await index.search([Search(RecommendationQuery([], [DENSE[0]]), 3)])
    with pytest.raises(ValueError, match="no example"):
        await index.search([Search(RecommendationQuery([], strategy="best"), 3)])


async def test_an_empty_query_finds_nothing_and_an_empty_half_does_not_hurt(index: Index) -> None:
    assert await index.search([Search(SparseQuery(Sparse([], [])), 3)]) == [[]]
    assert await ids(index, Search(HybridQuery(QUERY, Sparse([], [])), 3)) == [id for id, _ in brute(QUERY)[:3]]


@pytest.mark.parametrize(
    "query",
    [
        SparseQuery(WORD_QUERY),
        SparseQuery(title_trigrams("winter king"), using=TITLE),
        HybridQuery(QUERY, WORD_QUERY, weights=(1.0, 2.0), prefetch=30),
        HybridQuery(QUERY, WORD_QUERY, fusion="dbsf", prefetch=30),
        HybridQuery(QUERY, WORD_QUERY, fusion="linear", weights=(1.0, 0.1), prefetch=30),
        RecommendationQuery(DENSE[:3], DENSE[3:5]),
        RecommendationQuery(DENSE[:3], DENSE[3:5], strategy="best"),
        RecommendationQuery([], DENSE[3:5], strategy="best"),
    ],
    ids=lambda query: f"{type(query).__name__}-{getattr(query, 'fusion', getattr(query, 'strategy', ''))}",
)
async def test_the_engines_agree(query: SparseQuery | HybridQuery | RecommendationQuery, tmp_path: Path, index: Index) -> None:
    reference = await EdgeStore(tmp_path / "reference", "test").create(manifest())
    await reference.upsert(POINTS)
    search = Search(query, 20, filter=ItemFilter(kind=("film",)), exclude=frozenset(IDS[:6]))
    expected, found = (await reference.search([search]))[0], (await index.search([search]))[0]
    await reference.close()
    np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in expected], rtol=1e-4, atol=1e-5)
    assert found
    # The order of equal scores is the engine's own: only ids above the last score, and apart from their ties, are comparable.
    last = expected[-1].score + 1e-4
    assert {hit.id for hit in found if hit.score > last} == {hit.id for hit in expected if hit.score > last}
