"""Ids that are derived from kind, title and year are those of the first version, whatever else is understood of a row now."""

from pathlib import Path

import pytest

from matinee.catalogue.reader import read_items
from matinee.items import Item


@pytest.mark.parametrize(
    ("header", "row", "year", "before"),
    [
        ("title", "Quay (1995)", 1995, ("Quay (1995)", None)),
        ("title,year", "Quay (1995),", 1995, ("Quay (1995)", None)),
        ("title,year", "Quay (1995),1996", 1996, ("Quay (1995)", 1996)),
        ("title,year", "Quay,1995", 1995, ("Quay", 1995)),
        ("title,year", "Qu\u00aday,1995", 1995, ("Qu\u00aday", 1995)),
        ("title,year", "Quay,0", None, ("Quay", 2000)),
        ("title,Released_Year", "Quay,1995", 1995, ("Quay", None)),
        ("title,year", "Quay,[1995?]", 1995, ("Quay", None)),
        ("title,Published", "Quay,1", None, ("Quay", 2001)),
        ("title,released", "Quay,yes", None, ("Quay", None)),
    ],
)
def test_the_id_is_made_of_what_it_was_made_of(
    tmp_path: Path, header: str, row: str, year: int | None, before: tuple[str, int | None]
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    [item] = read_items(path, kind="film")
    # The golden form: `uid` of an item without `identity` is fixed by the test of items.
    title, old_year = before
    plain = Item(kind="film", title="x", year=old_year, identity=(title, old_year))
    assert item.year == year
    assert item.uid("films") == plain.uid("films")
    assert Item.model_validate(item.facts()).uid("films") == item.uid("films")
    assert (item.identity is None) == (before == (item.title, item.year))


def test_an_items_own_title_and_year_make_its_id_where_nothing_else_is_said() -> None:
    assert Item(kind="film", title="Heat", year=1995).uid("films") == "a9df4ef3-0c29-5778-8e6c-21c3d0129553"
    same = Item(kind="film", title="Heat!", year=1996, identity=("Heat", 1995))
    assert same.uid("films") == "a9df4ef3-0c29-5778-8e6c-21c3d0129553"


def test_canonically_equal_titles_are_one_item() -> None:
    assert Item(title="E\u0301te\u0301").uid("c") == Item(title="Été").uid("c") == Item(title="É\u200bté").uid("c")


def test_an_item_that_was_once_rejected_takes_no_id_from_another(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("title,year,overview\nQuay,,Old.\nQuay,soon,New.\nPier,1999,A pier.\nLamp,2000,A lamp.\n", encoding="utf-8")
    quay, new_quay, pier, lamp = read_items(path)
    assert [item.id for item in (quay, pier, lamp)] == [None, None, None]
    assert new_quay.year is None
    assert len({item.uid("c") for item in (quay, new_quay, pier, lamp)}) == 4


def test_a_row_that_was_once_too_short_takes_no_id_from_another(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("title,year,overview\nQuay,1999,Old.\nQuay,1999\n", encoding="utf-8")
    quay, short = read_items(path)
    assert quay.id is None
    assert short.uid("c") != quay.uid("c")
