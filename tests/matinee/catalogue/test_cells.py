from datetime import date
from typing import Any

import pytest

from matinee.catalogue.cells import CellError, as_names, as_text, is_nothing, repair
from matinee.catalogue.draft import read_id
from matinee.errors import kind_of


@pytest.mark.parametrize("value", [None, "", "  ", "NaN", "null", "N/A", "\\N", "None", "-", float("nan"), [], {}, ()])
def test_nothing(value: Any) -> None:
    assert is_nothing(value)


@pytest.mark.parametrize("value", [0, "0", False, "x", [None], 0.0])
def test_something(value: Any) -> None:
    assert not is_nothing(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (1984, "1984"),
        (300.0, "300"),
        (1.5, "1.5"),
        (True, "True"),
        (date(2020, 1, 2), "2020-01-02"),
        ("x", "x"),
        (["x"], "x"),
        ({"type": "/type/text", "value": "x"}, "x"),
        ([{"code": "en", "name": "English"}], "English"),
    ],
)
def test_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("value", "words"),
    [([1], "a list"), ((1,), "a list"), ({}, "an object"), (1, "a number"), (1.5, "a number"), (True, "true or false"), ("a", "a text")],
)
def test_messages_call_a_value_by_a_word_and_not_by_a_type_of_python(value: Any, words: str) -> None:
    assert kind_of(value) == words


def test_an_id_that_is_too_long_is_shown() -> None:
    with pytest.raises(CellError, match=r"at most \d+ characters, but this has 9,000: aaa"):
        read_id("a" * 9000)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, b"x", ("a", "b")])
def test_no_text(value: Any) -> None:
    with pytest.raises(CellError, match=r"not a text|an object without name"):
        as_text(value)


@pytest.mark.parametrize(
    ("raw", "clean", "broken"),
    [
        ("plain  text \n here", "plain text here", False),
        ("schÃ¶n", "schön", True),
        ("doesnâ€™t", "doesn’t", True),
        ("Tom &amp; Jerry &#39;s", "Tom & Jerry 's", False),
        ("caf\u00e9\u00a0noir\u3000x", "café noir x", False),
        ("e\u0301t\u00e9", "été", False),
        ("“curly” – ﬁne ＡＢＣ", "“curly” – ﬁne ＡＢＣ", False),
        ("bell\x07\x1b[0m", "bell", False),
        ("\ufeffstart", "start", False),
    ],
)
def test_repair(raw: str, clean: str, broken: bool) -> None:
    assert repair(raw) == (clean, broken)
    assert repair(clean) == (clean, False)


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(CellError, match="NUL"):
        repair("a\0b")


@pytest.mark.parametrize(
    ("value", "separator", "names"),
    [
        ("Action, Adventure", ",", ["Action", " Adventure"]),
        ("Action|Adventure||", "|", ["Action", "Adventure"]),
        ("Tolkien, J.R.R.", None, ["Tolkien, J.R.R."]),
        ('["Action", "Sci-Fi, odd"]', ",", ["Action", "Sci-Fi, odd"]),
        ("['Action', 'Drama']", ",", ["Action", "Drama"]),
        ('[{"id": 1, "name": "Action"}, {"id": 2, "name": "Drama"}]', ",", ["Action", "Drama"]),
        ("[{'id': 16, 'name': 'Animation'}]", ",", ["Animation"]),
        (["A", None, 3], None, ["A", "3"]),
        ([{"title": "A"}], None, ["A"]),
        ({"name": "A"}, None, ["A"]),
        (None, ",", []),
        ("[]", ",", []),
        (7, ",", ["7"]),
    ],
)
def test_as_names(value: Any, separator: str | None, names: list[str]) -> None:
    assert as_names(value, separator) == names


@pytest.mark.parametrize(
    ("value", "message"),
    [("[broken", ""), ("[1, 2", ""), ("[[x] y]", "can't be read"), ([{"id": 1}], "without a name"), ([[1, 2]], "not a text")],
)
def test_no_names(value: Any, message: str) -> None:
    if message:
        with pytest.raises(CellError, match=message):
            as_names(value, ",")
    else:
        assert as_names(value, None) == [value]
