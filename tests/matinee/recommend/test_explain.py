"""`matinee.recommend.explain` on each engine, with vectors made by hand; through the API it is `tests/serve/api/test_schemas_debug.py`."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from matinee.errors import IndexUnavailableError
from matinee.filters import ItemFilter
from matinee.index.protocols import Index, IndexStore
from matinee.index.types import BM25, TEXT, Manifest, Point, item_payload
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend.queries import Example, ExampleQuery, RankedItems, TextQuery
from matinee.recommend.recommender import Recommender
from matinee.settings.tree import SearchSettings
from matinee.vectors import Vector

WORDS = ("castle", "castle night", "night", "sea", "sea castle", "train", "train night", "island")
ITEMS = [Item(id=str(i), title=words, year=1990 + i, genres=("Drama",) if i % 2 else ("Horror",)) for i, words in enumerate(WORDS)]
IDS = [item.uid("test") for item in ITEMS]


def at(degrees: float) -> Vector:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


@pytest.fixture
async def index(any_store: IndexStore) -> AsyncIterator[Index]:
    """Items at 0, 10, 20 ... degrees: the cosine to 0 falls with their number."""
    opened = await any_store.create(
        Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 2}, models={"embedder": "hand"})
    )
    encoder = Bm25Encoder()
    await opened.upsert(
        [
            Point(IDS[i], item_payload(item, origin="file", revision=i), {TEXT: at(10 * i)}, {BM25: encoder.document(WORDS[i])})
            for i, item in enumerate(ITEMS)
        ]
    )
    yield opened
    await opened.close()


async def case(index: Index, call: Any) -> dict[str, Any]:
    [answer] = await Recommender(index, SearchSettings()).answer([call])
    assert isinstance(answer, RankedItems)
    assert answer.debug is not None
    assert answer.debug["index"] == {"version": "v1", "fingerprint": "f" * 64, "recipe": "raw", "models": {"embedder": "hand"}}
    return answer.debug


def outcomes(found: dict[str, Any]) -> dict[int, Any]:
    """What became of each item, by its number: its rank, or why it was dropped."""
    return {IDS.index(row["id"]): row.get("rank") or row["dropped"] for row in found["candidates"]}


async def test_dense_candidates_with_their_fate(index: Index) -> None:
    filter = ItemFilter(genres=("Drama",), year={"lte": 1995})
    found = await case(index, TextQuery("x", at(0), "dense", k=2, filter=filter, debug=True))
    both = ["filter.genres", "filter.year"]
    expected = {0: both[:1], 1: 1, 2: both[:1], 3: 2, 4: both[:1], 5: ["rank"], 6: both, 7: both[1:]}
    assert outcomes(found) == expected
    assert list(outcomes(found)) == list(range(8)), "in the order before the filter"
    assert found["dropped"] == {"filter.genres": 4, "filter.year": 2, "rank": 1}
    assert (found["items"], found["items_passing_filter"]) == (8, 3)
    for row in found["candidates"]:
        assert row["scores"]["dense"] == pytest.approx(np.cos(np.radians(10 * IDS.index(row["id"]))), abs=1e-5)


async def test_hybrid_scores_of_an_item_that_only_a_filter_brings_up(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.recommend.explain.MAX_CANDIDATES", 2)
    filter = ItemFilter(year={"gte": 1996})
    found = await case(index, TextQuery("train", at(0), "hybrid", k=1, filter=filter, debug=True))
    assert found["stages"] == ["dense", "sparse", "fused"]
    best = next(row for row in found["candidates"] if row.get("rank") == 1)
    assert best["id"] == IDS[6]
    assert best["scores"]["dense"] == pytest.approx(0.5, abs=1e-5), "cos 60 degrees, though not among the nearest two"
    assert best["scores"]["sparse"] > 0


async def test_an_exclusion_and_an_example(index: Index) -> None:
    call = ExampleQuery((Example(id=IDS[0]),), k=2, exclude=frozenset({IDS[1]}), debug=True)
    found = outcomes(await case(index, call))
    assert {i: found[i] for i in range(4)} == {0: ["example"], 1: ["exclude"], 2: 1, 3: 2}


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        (ItemFilter(), []),
        (ItemFilter(kind=("item",), genres=("Drama",)), []),
        (ItemFilter(kind=("book",), genres_all=("Drama", "War"), genres_none=("Drama",)), ["kind", "genres_all", "genres_none"]),
        (ItemFilter(language=("fr",), votes={"gte": 1}, rating={}), ["language", "votes"]),
    ],
)
def test_failed_conditions(filter: ItemFilter, names: list[str]) -> None:
    payload = item_payload(ITEMS[1], origin="file", revision=0)
    assert filter.unmet(payload) == names


async def test_a_report_that_fails_fails_its_own_call_alone(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> Any:
        raise IndexUnavailableError("the store is gone")

    monkeypatch.setattr("matinee.recommend.recommender.explain", gone)
    calls = [TextQuery("castle", None, "sparse", debug=True), TextQuery("castle", None, "sparse")]
    bad, good = await Recommender(index, SearchSettings()).answer(calls)
    assert isinstance(bad, IndexUnavailableError)
    assert isinstance(good, RankedItems)
