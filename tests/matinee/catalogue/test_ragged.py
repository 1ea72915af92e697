"""Rows with more or fewer cells than the header: read where the whole rows show what they mean, and rejected otherwise."""

from pathlib import Path

import pytest

from matinee.catalogue.ragged import LONG, SHORT
from matinee.catalogue.reader import ItemReader, ReadOptions, read_items
from matinee.items import Item

BOOKS = "id,title,authors,rating\n1,Harbour,Ann Fell,4.5\n2,Lane,Bo Kim/Cy Dow,4.1\n"


def read(tmp_path: Path, text: str, *, strict: bool = False) -> tuple[list[Item], ItemReader]:
    path = tmp_path / "c.csv"
    path.write_text(text, encoding="utf-8")
    reader = read_items(path, options=ReadOptions(strict=strict))
    return list(reader), reader


def warned(reader: ItemReader, what: str) -> bool:
    return any(what in warning for warning in reader.report.warnings)


def test_a_comma_and_a_space_in_a_text_without_quotes_is_no_delimiter(tmp_path: Path) -> None:
    items, reader = read(tmp_path, BOOKS + "3,Quay,Dee Lo, Jr./Eve Ray,3.9\n")
    assert items[2] == Item(id="3", title="Quay", people={"author": ("Dee Lo, Jr.", "Eve Ray")}, numbers={"rating": 3.9})
    assert warned(reader, f"1 rows have {LONG}, the first on line 4")
    assert reader.report.rejects == []


def test_a_title_with_commas_in_a_table_of_titles_is_one(tmp_path: Path) -> None:
    items, _ = read(tmp_path, "title\nHarbour\nGood, Bad, Late\n")
    assert [item.title for item in items] == ["Harbour", "Good, Bad, Late"]


@pytest.mark.parametrize(
    "row",
    [
        "3,Quay,Dee Lo,Eve Ray,3.9",  # which of the commas is one too many?
        "3,Quay, Pier,3.9,Dee Lo",  # a text where all others have a number
        "3,Quay, Pier, Dee Lo,3.9",  # a cell too few, if these are joined
    ],
)
def test_a_longer_row_that_can_mean_two_things_is_rejected(tmp_path: Path, row: str) -> None:
    items, reader = read(tmp_path, f"{BOOKS}{row}\n")
    assert len(items) == 2
    assert [reject.reason for reject in reader.report.rejects] == ["has 5 columns, the header has 4"]


def test_where_cells_begin_with_spaces_a_space_says_nothing(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "id,title,authors\n1, Harbour, Ann Fell\n2, Lane, Bo Kim, Jr.\n")
    assert (len(items), len(reader.report.rejects)) == (1, 1)


SHEET = "title,year,genres,overview,note\nA,1999,Drama,x,y\n"


def test_cells_that_a_spreadsheet_leaves_out_at_the_end_are_empty(tmp_path: Path) -> None:
    items, reader = read(tmp_path, SHEET + "".join(f"F{n},19{n},Drama\n" for n in range(10, 20)) + "Z,2000,War,x,y\n")
    assert [item.title for item in items] == ["A", *(f"F{n}" for n in range(10, 20)), "Z"]
    assert items[5] == Item(title="F14", year=1914, genres=("Drama",))
    assert warned(reader, f"10 rows have {SHORT}, the first on line 3")
    strict, reader = read(tmp_path, SHEET + "B,2000,Drama\n", strict=True)
    assert [item.title for item in strict] == ["A"]
    assert reader.report.rejects[0].reason == "has fewer cells than the header"


@pytest.mark.parametrize(
    "broken",
    [
        "B,2000,Drama,a line\nand its end,y\n",  # one row, cut in two by a line end without quotes
        "B,Drama,x,y\n",  # a cell is missing in its middle
        "B\n",  # a title, or the end of the row before?
    ],
)
def test_pieces_of_broken_rows_are_no_items(tmp_path: Path, broken: str) -> None:
    items, reader = read(tmp_path, SHEET + broken + "Z,2000,War,x,y\n")
    assert [item.title for item in items] == ["A", "Z"]
    assert len(reader.report.rejects) == broken.count("\n")


def test_a_column_that_is_named_twice(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "title,note,note\nA,x,y\n")
    assert items == [Item(title="A", extra={"note": "x", "note_2": "y"})]
    assert warned(reader, "column 3 is named 'note' like column 2")


def test_marks_that_nobody_sees_are_no_part_of_a_columns_name(tmp_path: Path) -> None:
    _, reader = read(tmp_path, "\ufeff\ufefftitle,no\u200bte\nA,x\n")
    assert reader.report.columns == {"title": "title", "note": "extra.note"}
