"""The item's own rules; what sources make of rows is in `test_sources`."""

from typing import Any

import pytest
from pydantic import ValidationError

from matinee.items import Item


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
