"""`matinee.items`: ids that never change, clean facts only, the meaning of a filter. What sources make of rows is in `test_sources`."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from matinee.errors import FilterError
from matinee.filters import ItemFilter
from matinee.index.types import item_payload
from matinee.items import MAX_LIST, MAX_TITLE, Item, item_uid

FILM = Item(
    id="heat-1995",
    kind="film",
    title="Heat",
    year=1995,
    genres=("Crime", "Drama"),
    people={"director": ("Michael Mann",), "cast": ("Al Pacino", "Robert De Niro")},
    language="en",
    numbers={"rating": 8.3, "votes": 700_000},
)
PAYLOAD = item_payload(FILM, origin="file", revision=0)


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
@pytest.mark.parametrize(
    "field",
    [lambda v: {"title": v}, lambda v: {"id": v}, lambda v: {"kind": v}, lambda v: {"language": v}, lambda v: {"genres": [v]}],
    ids=["title", "id", "kind", "language", "genres"],
)
def test_a_blank_is_no_name(field: Any, blank: str) -> None:
    with pytest.raises(ValidationError):
        Item(**({"title": "x"} | field(blank)))


def test_names_lose_the_space_around_them() -> None:
    assert Item(title=" A \n", genres=(" Drama ",), id="\t7").facts() == {"kind": "item", "title": "A", "genres": ["Drama"], "id": "7"}


@pytest.mark.parametrize("text", ["a\x00", "\x1b[0m", "\ud800"])
def test_control_characters_are_refused(text: str) -> None:
    for field in ("title", "overview", "id"):
        with pytest.raises(ValidationError):
            Item(**({"title": "x"} | {field: text}))


def test_texts_are_canonical_and_without_invisible_characters_but_ids_stay() -> None:
    item = Item(
        id="e\u0301", kind="fi\u00adlm", title="E\u0301te\u0301\u200b", genres=("\u200eDrama",), overview="\ufeffA.", extra={"a": "o\u0308"}
    )
    assert item.facts() == {"id": "e\u0301", "kind": "film", "title": "Été", "genres": ["Drama"], "overview": "A.", "extra": {"a": "ö"}}
    assert Item(title="می\u200cروم").title == "می\u200cروم"
    with pytest.raises(ValidationError):
        Item(title="\u200b")


def test_a_filter_finds_its_genre_however_it_is_typed() -> None:
    payload = item_payload(Item(title="x", genres=("Épopée",)), origin="file", revision=0)
    assert not ItemFilter(genres=("E\u0301pope\u0301e",)).unmet(payload)
    assert not ItemFilter(genres_all=("\u200eÉpopée",)).unmet(payload)


def test_ids_are_the_same_for_ever() -> None:
    assert FILM.uid("films") == item_uid("films", "heat-1995") == "9c4527e5-c00f-5a0b-a929-0cf33272e1bf"
    assert Item(kind="film", title="Heat", year=1995).uid("films") == "a9df4ef3-0c29-5778-8e6c-21c3d0129553"


def test_an_id_depends_on_the_catalogue_and_the_external_id_alone() -> None:
    assert FILM.uid("films") == FILM.model_copy(update={"title": "Other", "year": 1}).uid("films")
    assert len({FILM.uid("films"), FILM.uid("books"), item_uid("films", "heat-1996")}) == 3


def test_a_derived_id_depends_on_kind_title_and_year_but_not_on_case() -> None:
    bare = Item(kind="film", title="Heat", year=1995)
    assert bare.uid("a") == Item(kind="film", title="HEAT", year=1995, overview="Other.").uid("a")
    others = [Item(kind="book", title="Heat", year=1995), Item(kind="film", title="Heat", year=1996), Item(kind="film", title="Heat")]
    assert len({bare.uid("a"), *(other.uid("a") for other in others)}) == 4


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_every_id_is_a_uuid(external: str, catalogue: str) -> None:
    assert str(uuid.UUID(item_uid(catalogue, external))) == item_uid(catalogue, external)


def test_facts_are_json_without_what_is_empty_and_come_back_whole() -> None:
    assert Item(title="E.T.").facts() == {"kind": "item", "title": "E.T."}
    assert Item.model_validate(FILM.facts()) == FILM


def test_names_are_all_people_in_order() -> None:
    assert FILM.names() == ["Michael Mann", "Al Pacino", "Robert De Niro"]


@pytest.mark.parametrize(
    "facts",
    [
        {"title": "x" * (MAX_TITLE + 1)},
        {"colour": "red"},
        {"year": 3001},
        {"genres": ["g"] * (MAX_LIST + 1)},
        {"people": {"The Director": ["A"]}},
        {"numbers": {"rating": float("nan")}},
        {"numbers": {"rating": float("inf")}},
        {"numbers": {"votes": 1e16}},
        {"extra": {"a": "x" * 2001}},
    ],
)
def test_what_is_out_of_bounds_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Item(**({"title": "x"} | facts))


def test_an_item_needs_a_title() -> None:
    with pytest.raises(ValidationError, match="title"):
        Item()


def test_an_empty_range_is_refused_with_both_ends() -> None:
    with pytest.raises(FilterError, match="gte 2000 is above lte 1999"):
        ItemFilter(year={"gte": 2000, "lte": 1999})
    assert not ItemFilter(year={"gte": 2000, "lte": 2000}).is_empty()


@pytest.mark.parametrize(
    ("filter", "passes"),
    [
        (ItemFilter(), True),
        (ItemFilter(year={}), True),
        (ItemFilter(kind=("book", "film")), True),
        (ItemFilter(kind=("book",)), False),
        (ItemFilter(genres=("Drama", "War")), True),
        (ItemFilter(genres=("drama",)), False),
        (ItemFilter(genres_all=("Drama", "Crime")), True),
        (ItemFilter(genres_all=("Drama", "War")), False),
        (ItemFilter(genres_none=("War",)), True),
        (ItemFilter(genres_none=("War", "Crime")), False),
        (ItemFilter(language=("fr", "en")), True),
        (ItemFilter(language=("fr",)), False),
        (ItemFilter(year={"gte": 1995, "lte": 1995}), True),
        (ItemFilter(year={"gte": 1996}), False),
        (ItemFilter(rating={"lte": 8}), False),
        (ItemFilter(votes={"gte": 1000}), True),
        (ItemFilter(genres=("Drama",), year={"lte": 1990}), False),
    ],
)
def test_a_filter_means_what_it_says(filter: ItemFilter, passes: bool) -> None:
    assert (not filter.unmet(PAYLOAD)) is passes


def test_an_item_without_a_value_passes_no_range() -> None:
    bare = item_payload(Item(title="x"), origin="file", revision=0)
    assert ItemFilter(year={"gte": -5000}).unmet(bare)
    assert ItemFilter(genres=("Drama",)).unmet(bare)
    assert not ItemFilter(genres_none=("Drama",)).unmet(bare)


def test_only_a_filter_without_conditions_is_empty() -> None:
    assert ItemFilter().is_empty()
    assert not ItemFilter(genres=("Drama",)).is_empty()


@pytest.mark.parametrize(
    "title", ["\u200b", "\u200b\u200d\ufeff", "\u3164", "\u2800\u2800", "\u00ad", "\u0301", "\u202e", "\u115f\u1160", "\ue000"]
)
def test_a_title_that_nobody_can_see_is_refused(title: str) -> None:
    with pytest.raises(ValidationError, match=r"no character that can be seen|at least 1 character"):
        Item(title=title)
    assert Item(title=f"{title}A").title


@pytest.mark.parametrize("title", ["…", "9", "½", "❤️", "日", "é", "א", "+", "ㅤA"])
def test_any_title_that_can_be_seen_is_one(title: str) -> None:
    assert Item(title=title).title == title
