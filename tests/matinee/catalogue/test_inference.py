from pathlib import Path

import pytest

from matinee.catalogue.inference import ListColumn
from matinee.catalogue.reader import Report, read_items
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError
from matinee.items import Item


def read(tmp_path: Path, text: str, decimal: str | None = None, *, strict: bool = False) -> tuple[list[Item], Report]:
    path = tmp_path / "c.csv"
    path.write_text(text, encoding="utf-8")
    reader = read_items(path, options=ReadOptions(decimal=decimal, strict=strict))
    return list(reader), reader.report


@pytest.mark.parametrize(
    ("cells", "people", "separator"),
    [
        (["Action, Adventure", "Drama"], False, ","),
        (["Action|Adventure, odd"], False, "|"),
        (["A; B", "C, D"], False, ";"),
        (["Drama"], False, None),
        (["Tolkien, J.R.R.", "Austen, Jane"], True, None),
        (["Tom Hanks, Meg Ryan", "A B, C D, E F"], True, ","),
        (["Tolkien, J.R.R.; Lewis, C.S."], True, ";"),
        (['["a|b"]', None, 3], False, None),
    ],
)
def test_the_separator_of_a_list_is_the_columns(cells: list[object], people: bool, separator: str | None) -> None:
    column = ListColumn()
    for cell in cells:
        column.observe(cell)
    assert column.separator(people=people) == separator


def test_a_column_that_is_only_named_like_numbers_or_dates_stays_a_fact(tmp_path: Path) -> None:
    items, report = read(tmp_path, "title,rating,released\nA,PG-13,yes\nB,R,no\n")
    assert items[0].extra == {"rating": "PG-13", "released": "yes"}
    assert items[0].numbers == {}
    assert items[0].year is None
    assert "column 'released' is named like a date" in report.warnings[0]
    assert "column 'rating' is named like numbers.rating" in report.warnings[1]


def test_one_odd_value_in_a_column_of_numbers_is_left_out_and_with_strict_costs_its_row(tmp_path: Path) -> None:
    text = "title,rating\nA,8.5\nB,good\nC,\n"
    items, report = read(tmp_path, text)
    assert [item.numbers for item in items] == [{"rating": 8.5}, {}, {}]
    why = "'good' is not a number with the decimal sign '.'"
    assert report.warnings[-1] == f"column 'rating': 1 values can't be read and are left out, the first on line 3, good: {why}"
    items, report = read(tmp_path, text, strict=True)
    assert [item.numbers for item in items] == [{"rating": 8.5}, {}]
    assert report.rejects[0].reason == f"column 'rating': {why}"


def test_one_column_shows_the_decimal_sign_of_the_others(tmp_path: Path) -> None:
    assert read(tmp_path, "title;rating;votes\nA;8,3;1.234\n")[0][0].numbers == {"rating": 8.3, "votes": 1234}
    assert read(tmp_path, 'title,rating,votes\nA,8.3,"1,234"\n')[0][0].numbers == {"rating": 8.3, "votes": 1234}
    with pytest.raises(SourceError, match=r"c\.csv: column 'votes' has numbers such as '1,234'"):
        read(tmp_path, 'title,rating,votes\nA,8,"1,234"\n')
    assert read(tmp_path, 'title,rating,votes\nA,8,"1,234"\n', ".")[0][0].numbers == {"rating": 8, "votes": 1234}


def test_an_unknown_column_is_numbers_only_when_all_of_it_is(tmp_path: Path) -> None:
    items, _ = read(tmp_path, "title,runtime,format\nA,90,35\nB,,digital\n")
    assert items[0].numbers == {"runtime": 90}
    assert items[0].extra == {"format": "35"}
