"""An item's facts as the values of its attributes."""

import pytest
from pydantic import ValidationError

from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute, AttributeType, payload_key, stored_values, to_utc


@pytest.mark.parametrize(
    ("type", "fact", "value"),
    [
        ("keyword", "Red", "Red"),
        ("keyword", " Red ", "Red"),
        ("keyword", " ", None),
        ("integer", "12", 12),
        ("integer", "12.0", 12),
        ("integer", "12.5", None),
        ("integer", "1e3", None),
        ("float", "-.5e2", -50.0),
        ("float", "nan", None),
        ("float", "1,5", None),
        ("boolean", "Yes", True),
        ("boolean", "0", False),
        ("boolean", "perhaps", None),
        ("datetime", "2024-02-29", "2024-02-29T00:00:00.000000Z"),
        ("datetime", "2024-02-30", None),
        ("datetime", "0001-01-01T00:00:00+14:00", None),
        ("datetime", "20240229", None),
        ("geo", "48.86, 2.35", {"lat": 48.86, "lon": 2.35}),
        ("geo", ("48.86", "2.35"), {"lat": 48.86, "lon": 2.35}),
        ("geo", "2.35 181", None),
        ("geo", "90, 0", {"lat": 89.999999999, "lon": 0.0}),
        ("geo", "48.86", None),
    ],
)
def test_a_fact_as_a_value_of_a_type(type: AttributeType, fact: object, value: object) -> None:
    attribute = Attribute(type=type, source="extra.x")
    assert attribute.values({"extra": {"x": fact}}) == ([] if value is None else [value], int(value is None))


@pytest.mark.parametrize(
    ("type", "number", "value"), [("keyword", 12.0, "12"), ("integer", 2.5, None), ("boolean", 1.0, True), ("float", 2.5, 2.5)]
)
def test_a_number_as_a_value_of_a_type(type: AttributeType, number: float, value: object) -> None:
    found, unread = Attribute(type=type, source="numbers.x").values({"numbers": {"x": number}})
    assert (found, unread) == ([] if value is None else [value], int(value is None))


def test_one_value_is_the_first_and_many_are_each_once() -> None:
    item = {"people": {"cast": ["Bo", "Ann", "Bo"]}}
    assert Attribute(type="keyword", source="people.cast").values(item)[0] == ["Bo"]
    assert Attribute(type="keyword", source="people.cast", many=True).values(item)[0] == ["Bo", "Ann"]


def test_a_point_needs_both_of_its_numbers() -> None:
    place = Attribute(type="geo", source=("numbers.lat", "numbers.lon"))
    assert place.values({"numbers": {"lat": 1.0, "lon": 2.0}})[0] == [{"lat": 1.0, "lon": 2.0}]
    assert place.values({"numbers": {"lat": 1.0}}) == ([], 0)


def test_the_words_of_a_text_are_stored_without_case_and_accents() -> None:
    assert Attribute(type="text", source="overview").values({"overview": "Déjà vu, déjà-VU!"})[0] == ["deja", "vu"]


def test_only_what_a_payload_lacks_is_stored() -> None:
    year_of_print = Attribute(type="integer", source="extra.printed")
    declared = DEFAULT_ATTRIBUTES | {"year": year_of_print, "size": Attribute(type="keyword", source="extra.size")}
    item = {"year": 1999, "extra": {"printed": "2001"}}
    assert stored_values(item, declared) == {"year": 2001}
    assert (payload_key("year", year_of_print), payload_key("year", DEFAULT_ATTRIBUTES["year"])) == ("attributes.year", "year")


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        ({"type": "float", "source": "numbers.x", "facet": True}, "can't be counted"),
        ({"type": "float", "source": ["numbers.x", "numbers.y"]}, "two places make a point"),
        ({"type": "colour", "source": "extra.x"}, "keyword"),
        ({"type": "keyword", "source": "extra.X"}, "source"),
        ({"type": "keyword"}, "source"),
    ],
)
def test_a_declaration_that_means_nothing(declaration: dict, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Attribute(**declaration)


def test_moments_are_in_order_as_texts() -> None:
    written = ["0999-01-01", "2024-05-01", "2024-05-01T00:00:00.1Z", "2024-05-01T02:00:00+01:00", "2024-05-01T02:00"]
    read = [to_utc(text) for text in written]
    assert read == sorted(read, key=str)
    assert None not in read
