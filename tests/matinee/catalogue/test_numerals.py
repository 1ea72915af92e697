from decimal import Decimal

import pytest

from matinee.catalogue.cells import CellError
from matinee.catalogue.numerals import NumberColumn, number
from matinee.errors import SourceError


def column(*cells: object) -> NumberColumn:
    found = NumberColumn("score")
    for cell in cells:
        found.observe(cell)
    return found


@pytest.mark.parametrize(
    ("cells", "delimiter", "values"),
    [
        (["8,3", "7,25"], ";", [8.3, 7.25]),
        (["8,3", "1,234"], ";", [8.3, 1.234]),
        (["8.3", "1,234"], ",", [8.3, 1234]),
        (["1.234,5", "2.000"], ";", [1234.5, 2000]),
        (["1,234.5", "2,000"], ",", [1234.5, 2000]),
        (["1.234.567", "1.000"], ";", [1234567, 1000]),
        (["1,234,567", "1,000"], "\t", [1234567, 1000]),
        (["0,125"], ";", [0.125]),
        (["5083.954", "875.123"], ";", [5083.954, 875.123]),
        (["875.123"], ",", [875.123]),
        (["1 234 567", "12"], ";", [1234567, 12]),
        (["1’234.5"], ";", [1234.5]),
        (["-3", "+4", "1e5", "2.5E-3", ".5"], ",", [-3, 4, 1e5, 2.5e-3, 0.5]),
        ([3, 2.5, Decimal("1.5"), None, "", "NaN", float("nan")], None, [3, 2.5, 1.5, None, None, None, None]),
        ([".5", "5."], ";", [0.5, 5]),
    ],
)
def test_the_column_shows_its_decimal_sign(cells: list[object], delimiter: str | None, values: list[float | None]) -> None:
    sign = column(*cells).decide(None, delimiter)
    assert [number(cell, sign) for cell in cells] == values


@pytest.mark.parametrize(("cell", "delimiter"), [("1,234", ","), ("1,234", ";"), ("1,234", None), ("1.234", ";"), ("1.234", "\t")])
def test_a_riddle_is_asked_about(cell: str, delimiter: str | None) -> None:
    with pytest.raises(SourceError, match=r"'score' has numbers such as '1.234', which may mean 1234 or 1\.234: pass --decimal"):
        column(cell).decide(None, delimiter)
    assert column(cell).decide(".", delimiter) == "."


def test_a_mixed_column_is_asked_about() -> None:
    with pytest.raises(SourceError, match="mixes decimal points"):
        column("8.3", "8,3").evidence()


def test_one_odd_cell_in_many_is_left_to_be_rejected() -> None:
    assert column(*["8.3"] * 200, "8,3").evidence() == "."
    with pytest.raises(CellError, match=r"'8,3' is not a number with the decimal sign '\.'"):
        number("8,3", ".")


@pytest.mark.parametrize("cell", ["PG-13", "007", "1,2,3", "12%", "$5", "1.2.3", True, [1], "1,23,456", "inf", "0x10", "1_000"])
def test_what_is_no_number_is_refused(cell: object) -> None:
    assert column(cell).share() == 0
    with pytest.raises(CellError):
        number(cell, ".")
