"""The options of a ranked list, on candidates alone."""

from typing import Any

import pytest

from matinee.errors import UnknownAttributeError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.types import Hit
from matinee.recommend.options import RankingOptions, count_facets, select_fields, sort_hits

DECLARED = DEFAULT_ATTRIBUTES | {
    "maker": Attribute(type="keyword", source="extra.maker", many=True),
    "about": Attribute(type="text", source="overview"),
}


def hit(id: str, score: float, *, makers: list[str] | None = None, **payload: Any) -> Hit:
    return Hit(id, score, payload | ({"attributes": {"maker": makers}} if makers else {}))


HITS = [
    hit("d", 0.9, year=1990, makers=["A", "B"]),
    hit("b", 0.5, year=2000, makers=["B"]),
    hit("a", 0.5, makers=["A"]),
    hit("c", 0.1, year=1990),
]


def ids(hits: list[Hit]) -> str:
    return "".join(one.id for one in hits)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        (RankingOptions(), "dbac"),
        (RankingOptions(offset=0), "dabc"),
        (RankingOptions(min_score=0.5), "dba"),
        (RankingOptions(sort=(("year", "desc"),)), "bdca"),
        (RankingOptions(sort=(("year", "asc"),)), "dcba"),
        (RankingOptions(sort=(("maker", "asc"), ("year", "desc"))), "dabc"),
        (RankingOptions(sort=(("maker", "desc"),)), "dbac"),
    ],
)
def test_orders(options: RankingOptions, order: str) -> None:
    """Equal scores by id; an item without the attribute comes last in both directions; of many values the first in order counts."""
    assert ids(sort_hits(HITS, options, DECLARED)) == order


def test_counts_are_of_all_candidates() -> None:
    assert count_facets(HITS, RankingOptions(facets=("maker", "year")), DECLARED) == {
        "maker": [("A", 2), ("B", 2)],
        "year": [(1990, 2), (2000, 1)],
    }


def test_fields() -> None:
    item = {"title": "x", "year": 1990, "numbers": {"votes": 1.0, "rating": 2.0}, "extra": {"size": "9"}}
    assert select_fields(item, None) == item
    assert select_fields(item, ()) == {}
    assert select_fields(item, ("title", "numbers.votes", "extra", "extra.size", "people.cast")) == {
        "title": "x", "numbers": {"votes": 1.0}, "extra": {"size": "9"}
    }  # fmt: skip
    assert item["numbers"] == {"votes": 1.0, "rating": 2.0}


@pytest.mark.parametrize(
    "options",
    [
        RankingOptions(sort=(("about", "asc"),)),
        RankingOptions(sort=(("colour", "asc"),)),
        RankingOptions(group_by="rating"),
        RankingOptions(facets=("rating",)),
    ],
)
def test_a_wrong_attribute_names_those_there_are(options: RankingOptions) -> None:
    with pytest.raises(UnknownAttributeError, match=r"kind \(keyword\)"):
        options.check(DECLARED)
