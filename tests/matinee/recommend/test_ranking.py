"""`matinee.recommend.ranking`: properties of the diversified list, and facts that are really shared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.index.types import Hit
from matinee.items import Item
from matinee.recommend.ranking import MIN_POOL, LikedFacts, diversify, nearest_like, pool_size
from matinee.text.templates import Shared
from matinee.vectors import Vector

FILM = Item(
    kind="film",
    title="A",
    year=2015,
    genres=("Action", "Science Fiction"),
    people={"director": ("George Miller",), "cast": ("Tom Hardy", "Charlize Theron")},
    language="en",
)


def unit(angle: float) -> Vector:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


angles = st.lists(st.none() | st.floats(0, 6.28), max_size=12)
diversities = st.floats(0, 1)
ks = st.integers(1, 15)


def hits(drawn: list[float | None]) -> list[Hit]:
    return [Hit(f"id-{i}", 1 - i / 100, vector=None if angle is None else unit(angle)) for i, angle in enumerate(drawn)]


@given(angles, ks)
def test_without_diversity_the_list_stays_as_it_is(drawn: list[float | None], k: int) -> None:
    candidates = hits(drawn)
    assert list(map(id, diversify(candidates, k, 0))) == list(map(id, candidates[:k]))


@given(angles, ks, diversities)
def test_a_diverse_list_is_a_part_of_the_candidates_without_repeats(drawn: list[float | None], k: int, diversity: float) -> None:
    chosen = [hit.id for hit in diversify(hits(drawn), k, diversity)]
    assert len(chosen) == len(set(chosen)) == min(k, len(drawn))
    assert set(chosen) <= {hit.id for hit in hits(drawn)}


@given(angles.filter(bool), ks, diversities.filter(lambda d: d < 1))
def test_the_first_is_always_the_best(drawn: list[float | None], k: int, diversity: float) -> None:
    assert diversify(hits(drawn), k, diversity)[0].id == "id-0"


@given(angles, ks, diversities)
def test_a_longer_list_begins_with_the_shorter_one(drawn: list[float | None], k: int, diversity: float) -> None:
    short, long = diversify(hits(drawn), k, diversity), diversify(hits(drawn), k + 1, diversity)
    assert [hit.id for hit in long][: len(short)] == [hit.id for hit in short]


@given(st.lists(st.floats(0, 6.28), min_size=2, max_size=12), ks)
def test_scores_do_not_matter_only_ranks(drawn: list[float], k: int) -> None:
    scaled = [Hit(hit.id, hit.score * 1e6, vector=hit.vector) for hit in hits(list(drawn))]
    assert [hit.id for hit in diversify(scaled, k, 0.5)] == [hit.id for hit in diversify(hits(list(drawn)), k, 0.5)]


def test_at_full_diversity_even_the_first_is_the_best() -> None:
    assert diversify(hits([0.0, 1.0, 2.0]), 2, 1.0)[0].id == "id-0"


def test_a_near_copy_gives_way_to_something_else() -> None:
    candidates = hits([0.0, 0.001, 1.5])
    assert [hit.id for hit in diversify(candidates, 2, 0.7)] == ["id-0", "id-2"]
    assert [hit.id for hit in diversify(candidates, 2, 0.01)] == ["id-0", "id-1"]


@pytest.mark.parametrize(("k", "diversity", "expected"), [(10, 0, 10), (1, 0.1, MIN_POOL), (100, 1, 500)])
def test_diversity_gets_more_candidates_than_it_answers(k: int, diversity: float, expected: int) -> None:
    assert pool_size(k, diversity) == expected


@given(st.lists(st.floats(0, 6.28), min_size=1, max_size=8), st.floats(0, 6.28))
def test_the_reason_names_the_nearest_like(likes: list[float], at: float) -> None:
    chosen = nearest_like(unit(at), [unit(angle) for angle in likes])
    assert unit(likes[chosen]) @ unit(at) >= max(unit(angle) @ unit(at) for angle in likes) - 1e-6


def test_without_a_vector_the_first_like_speaks() -> None:
    assert nearest_like(None, [unit(0), unit(1)]) == 0


def test_shared_facts_ignore_case_and_need_the_same_role() -> None:
    other = Item(title="B", year=2011, genres=("ACTION",), people={"cast": ("tom hardy", "George Miller")}, language="fr")
    assert LikedFacts(FILM.facts()).shared_with(other.facts()) == Shared(genres=("ACTION",), people={"cast": ("tom hardy",)}, decade=2010)


def test_nothing_is_shared_with_what_says_nothing() -> None:
    pairs = ((FILM.facts(), Item(title="B").facts()), ({}, FILM.facts()), ({}, {}))
    assert all(LikedFacts(liked).shared_with(item) == Shared() for liked, item in pairs)


def test_shared_facts_come_in_the_order_of_the_recommended_item() -> None:
    other = Item(title="B", year=2020, genres=("Science Fiction", "Drama", "Action"), language="EN")
    assert LikedFacts(FILM.facts()).shared_with(other.facts()) == Shared(genres=("Science Fiction", "Action"), language="EN")


@given(st.integers(-100, 2100), st.integers(-100, 2100))
def test_a_decade_is_shared_by_its_ten_years_alone(a: int, b: int) -> None:
    decade = LikedFacts({"year": a}).shared_with({"year": b}).decade
    assert (decade is not None) == (a // 10 == b // 10)
    assert decade is None or decade <= min(a, b) < decade + 10
