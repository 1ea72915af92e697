from pathlib import Path
from typing import Any

import pytest

from matinee.catalogue.inference import ListColumn
from matinee.catalogue.lists import read_list
from matinee.catalogue.people import join_suffixes
from matinee.catalogue.reader import read_items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['Drama', 'War']", ["Drama", "War"]),
        ("['Drama' 'Sea story']", ["Drama", "Sea story"]),
        ("['Drama'\n 'War']", ["Drama", "War"]),
        ("['Drama' nan 'War']", ["Drama", "War"]),
        ("array(['Drama', 'War'], dtype=object)", ["Drama", "War"]),
        ("('Ann Fell', 'Bo Gray')", ["Ann Fell", "Bo Gray"]),
        ("('Ann Fell',)", ["Ann Fell"]),
        ("{'Drama'}", ["Drama"]),
        ("frozenset({'Drama'})", ["Drama"]),
        ('c("Quick", "One pot")', ["Quick", "One pot"]),
        ('list("Quick")', ["Quick"]),
        ('{Drama,"Sea story",Women\'s}', ["Drama", "Sea story", "Women's"]),
        ("{}", {}),
        ("[Drama, War (TV)]", ["Drama", "War (TV)"]),
        ('["Drama", "caf\\u00e9"]', ["Drama", "café"]),
        ("['caf\\xe9']", ["café"]),
        ("""['it\\'s', "don't"]""", ["it's", "don't"]),
        ("[1, 2]", [1, 2]),
        ('{"Drama": 4}', {"Drama": 4}),
        ("{'/m/01': 'Drama'}", {"/m/01": "Drama"}),
        ("[{'id': 1, 'name': 'Drama'}]", [{"id": 1, "name": "Drama"}]),
        ("(no genres listed)", None),
        ("(500) Nights (and days)", None),
        ("Drama", None),
        ("[broken", None),
        ("", None),
    ],
)
def test_lists_as_programs_print_them(text: str, expected: Any) -> None:
    assert read_list(text) == expected


def genres(tmp_path: Path, *cells: str, column: str = "genres") -> list[tuple[str, ...]]:
    path = tmp_path / "c.csv"
    path.write_text(f"title\t{column}\n" + "".join(f"T{n}\t{cell}\n" for n, cell in enumerate(cells)), encoding="utf-8")
    items = list(read_items(path))
    assert len(items) == len(cells)
    return [item.genres or item.people.get(column, ()) for item in items]


def test_one_odd_cell_does_not_decide_the_separator(tmp_path: Path) -> None:
    plain = ["Drama, War", "Comedy, Love", "Drama, Sea", "Crime, Night"]
    assert genres(tmp_path, *plain, "Sci-Fi &amp; Fantasy, Drama")[-1] == ("Sci-Fi & Fantasy", "Drama")
    assert genres(tmp_path, *plain, "Odd|Cell")[0] == ("Drama", "War")
    assert genres(tmp_path, *plain, "Odd; cell")[0] == ("Drama", "War")
    assert genres(tmp_path, "Sea &amp; Sky; Drama", "War; Love")[0] == ("Sea & Sky", "Drama")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["Ann Fell, Bo Gray, Jr., Cy Orr", "Di Poe, Ed Roe"], ("Ann Fell", "Bo Gray, Jr.", "Cy Orr")),
        (["Ann Fell/Bo Gray", "Cy Orr"], ("Ann Fell", "Bo Gray")),
        (["AC/DC", "Cy Orr"], ("AC/DC",)),
        (["Fell, Ann", "Gray, Bo"], ("Fell, Ann",)),
    ],
)
def test_names_keep_the_signs_that_belong_to_them(tmp_path: Path, cells: list[str], expected: tuple[str, ...]) -> None:
    assert genres(tmp_path, *cells, column="author")[0] == expected


def test_suffixes_return_to_their_names() -> None:
    assert join_suffixes(["Lamp Works", " Inc.", "Quay", " LLC"]) == ["Lamp Works, Inc.", "Quay, LLC"]
    assert join_suffixes(["Jr.", "Ann"]) == ["Jr.", "Ann"]


def test_paths_of_categories_are_names_each(tmp_path: Path) -> None:
    assert genres(tmp_path, "Home > Lighting > Lamps, Home > Gifts")[0] == ("Home", "Lighting", "Lamps", "Gifts")
    assert genres(tmp_path, '["Home >> Lamps"]')[0] == ("Home", "Lamps")


def test_slashes_separate_people_only() -> None:
    column = ListColumn()
    column.observe("Ann Fell/Bo Gray")
    assert (column.separator(people=True), column.separator(people=False)) == ("/", None)


@pytest.mark.parametrize(
    "cells",
    [
        ('"Drama\nSea & Sky"', "War"),
        ("Drama / Sea & Sky", "Sci-Fi/Fantasy"),
        ("Drama、Sea & Sky",),
        ("Drama，Sea & Sky",),
        ("Drama｜Sea & Sky",),
    ],
)
def test_separators_of_people_and_of_other_scripts(tmp_path: Path, cells: tuple[str, ...]) -> None:
    found = genres(tmp_path, *cells)
    assert found[0] == ("Drama", "Sea & Sky")
    assert all(len(names) == 1 for names in found[1:])
