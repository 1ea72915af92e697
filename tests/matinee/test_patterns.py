"""No error shows a regular expression: each pattern that a user can meet has words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import StringConstraints, TypeAdapter, ValidationError

import serve.graph.requests  # noqa: F401  the patterns of requests
from matinee.errors import SettingsError
from matinee.filters.attributes import Attribute
from matinee.items import Item
from matinee.patterns import WORDS, message_of
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


def patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for value in schema.values():
            yield from patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from patterns(value)


def test_every_pattern_of_settings_items_and_requests_has_words() -> None:
    schemas = (Settings.model_json_schema(), Item.model_json_schema(), Attribute.model_json_schema(), json.loads(OPENAPI.read_bytes()))
    # The URL of a server is checked by a function, which has words of its own.
    found = {pattern for schema in schemas for pattern in patterns(schema) if not pattern.startswith("^https?:")}
    assert len(found) >= 6
    assert found <= WORDS.keys()


def test_a_pattern_without_words_is_shown_as_it_is() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[str, StringConstraints(pattern="^x$")]).validate_python("y")
    assert "^x$" in message_of(caught.value.errors()[0])


def test_a_catalogue_in_the_settings_is_explained_in_words() -> None:
    with pytest.raises(SettingsError, match=r"catalogue: use lower-case letters.* \(it is 'My Films'\)"):
        load_settings({"catalogue": "My Films"}, environ={})


def test_forms_have_the_names_of_json() -> None:
    for form, said in ((tuple[str, ...], "a list"), (list[str], "a list"), (dict[str, str], "an object"), (Item, "an object")):
        with pytest.raises(ValidationError) as caught:
            TypeAdapter(form).validate_python(7)
        assert message_of(caught.value.errors()[0]) == f"Input should be {said}"
