from datetime import date, datetime

import pytest

from matinee.catalogue.cells import CellError
from matinee.catalogue.dates import DateColumn, Dates
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError

PIVOT = (date.today().year + 1) % 100


def years(cells: list[object], **options: object) -> tuple[list[int | None], list[str]]:
    column = DateColumn("released")
    for cell in cells:
        column.observe(cell)
    warnings: list[str] = []
    rule = column.decide(ReadOptions(**options), warnings)  # type: ignore[arg-type]
    return [rule.year(cell) for cell in cells], warnings


@pytest.mark.parametrize(
    ("cell", "year"),
    [
        ("2021", 2021), (2021, 2021), (2021.0, 2021), ("2021.0", 2021), ("-44", -44), ("800", 800),
        ("2021-12-15", 2021), ("2021/12/15", 2021), ("2021.12.15", 2021), ("2021-12", 2021), ("2021-00-00", 2021),
        ("2021-12-15T10:00:00Z", 2021), ("2021-12-15 10:00:00.123", 2021), ("20211215", 2021), (20211215, 2021),
        ("15/12/2021", 2021), ("12/15/2021", 2021), ("03.04.2021", 2021), ("3 4 2021", 2021), ("12/2021", 2021), ("1/2/2021 0:00", 2021),
        ("15 December 2021", 2021), ("Dec 15, 2021", 2021), ("15 décembre 2021", 2021), ("15-Dec-2021", 2021), ("circa 1850", 1850),
        ("2008–2013", 2008), ("2008-", 2008), ("2008 - present", 2008),
        (date(2021, 5, 1), 2021), (datetime(2021, 5, 1), 2021),
        ("", None), (None, None), (float("nan"), None), ("NaT", None), ("\\N", None), ("0000-00-00", None),
    ],
)  # fmt: skip
def test_year(cell: object, year: int | None) -> None:
    assert years([cell]) == ([year], [])


@pytest.mark.parametrize(
    "cell",
    [
        "soon",
        "2021-13-32",
        "13/13/2021",
        "32/01/2021",
        "44545",
        "1639526400",
        "1,234",
        "1999 or 2001",
        "99/99/2001",
        "20211340",
        "45/45/45",
    ],
)
def test_what_is_no_date_is_refused(cell: str) -> None:
    with pytest.raises(CellError, match="is not a date or a year"):
        Dates("last", 30).year(cell)


def test_the_order_of_day_and_month_does_not_matter_for_the_year() -> None:
    assert years(["01/02/2003", "25/12/2004", "12/25/2005"]) == ([2003, 2004, 2005], [])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["01/02/03", "31/12/99"], [2003, 1999]),
        (["01/02/03", "12/31/99"], [2003, 1999]),
        (["01-02-03", "99-12-31"], [2001, 1999]),
        (["15-Dec-98", "01-Jan-03"], [1998, 2003]),
    ],
)
def test_one_clear_date_decides_the_column(cells: list[object], expected: list[int]) -> None:
    found, warnings = years(cells)
    assert found == expected
    assert "two-digit years" in warnings[0]


def test_an_undecided_column_is_asked_about() -> None:
    with pytest.raises(SourceError, match="'released' has dates such as '01/02/03', whose year may stand first or last: pass --date-order"):
        years(["01/02/03", "04/05/06"])


@pytest.mark.parametrize(("order", "expected"), [("dmy", [2003, 2006]), ("mdy", [2003, 2006]), ("ymd", [2001, 2004])])
def test_date_order_answers(order: str, expected: list[int]) -> None:
    assert years(["01/02/03", "04/05/06"], date_order=order)[0] == expected


def test_dates_that_give_the_same_year_either_way_are_no_riddle() -> None:
    assert years(["03/02/03", "05/06/05"])[0] == [2003, 2005]


def test_a_column_of_both_orders_is_asked_about() -> None:
    with pytest.raises(SourceError, match="mixes dates with the year first and last"):
        years(["31/12/99", "99/12/31"])


@pytest.mark.parametrize(("cell", "year"), [("99", 1999), ("'99", 1999), ("03", 2003), (f"{PIVOT:02d}", 2000 + PIVOT)])
def test_two_digit_years_are_told(cell: str, year: int) -> None:
    found, warnings = years([cell])
    assert found == [year]
    assert "pass --pivot to change that" in warnings[0]


def test_two_digit_years_that_reach_back_far_are_asked_about() -> None:
    with pytest.raises(SourceError, match="15 may be 1915 or 2015: pass --pivot"):
        years(["15", "39"])
    assert years(["15", "39"], pivot=10) == ([1915, 1939], [])
    assert years(["15", "39"], pivot=20) == ([2015, 1939], [])


@pytest.mark.parametrize(
    ("cell", "year"),
    [
        ("(2021– )", 2021), ("(2010-2019)", 2010), ("(2010–2022)", 2010), ("[1987]", 1987), ("[1987?]", 1987), ("1987?", 1987),
        ("©1999", 1999), ("c1999", 1999), ("[ca. 1850]", 1850), ("p1987, c1985", 1987), ("1987, ©1985", 1987), ("1999/2000", 1999),
        ("Oct 1998 to Apr 1999", 1998), ("Apr 3, 1998 to ?", 1998), ("Oct 3, 2015 - Mar 27, 2016", 2015), ("(I) (2014)", 2014),
        ("2019-01-01/2019-12-31", 2019), ("2019-05-01/..", 2019), ("1990s", 1990), ("2006 (USA)", 2006), ("1998 to present", 1998),
        ({"from": "1998-04-03T00:00:00+00:00", "to": None}, 1998), ({"year": 1999, "month": 3}, 1999), (["2001-05", "2003"], 2001),
    ],
)  # fmt: skip
def test_usual_spellings_of_years_and_the_first_year_of_a_span(cell: object, year: int) -> None:
    assert years([cell]) == ([year], [])
