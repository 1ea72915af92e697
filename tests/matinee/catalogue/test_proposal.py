"""The attributes that are proposed for items, what they have of a declaration, and the declaration as a file."""

from pathlib import Path
from typing import Any

import pytest

from matinee.catalogue.declaration import as_yaml, read_declaration
from matinee.catalogue.proposal import changes, propose_attributes
from matinee.errors import SourceError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.items import Item


def product(i: int, **more: Any) -> Item:
    extra = {
        "colour": ("red", "blue") if i % 2 else ("red",),
        "new": "true" if i % 3 else "no",
        "released": f"20{i % 20:02}-05-01",
        "code": f"X{i}",
        "sheet": f"https://example.org/{i}",
        "care": " ".join(["wash it by hand and let it dry in the sun"] * 2) + str(i % 5),
        "coordinates": ("48.86", "2.35"),
    }
    return Item(title=f"Thing {i}", numbers={"price": i / 2, "stock": float(i), "lat": 1.0, "lng": 2.0}, extra=extra | more)


def test_types_are_proposed_from_the_values() -> None:
    proposed, rows = propose_attributes([product(i) for i in range(120)])
    assert {name: one for name, one in proposed.items() if name not in DEFAULT_ATTRIBUTES} == {
        "location": Attribute(type="geo", source=("numbers.lat", "numbers.lng")),
        "price": Attribute(type="float", source="numbers.price"),
        "stock": Attribute(type="integer", source="numbers.stock"),
        "colour": Attribute(type="keyword", source="extra.colour", many=True, facet=True),
        "new": Attribute(type="boolean", source="extra.new", facet=True),
        "released": Attribute(type="datetime", source="extra.released"),
        "care": Attribute(type="text", source="extra.care"),
        "coordinates": Attribute(type="geo", source="extra.coordinates"),
    }
    by_name = {row.name: row for row in rows}
    assert (by_name["colour"].missing, by_name["colour"].distinct, by_name["price"].distinct) == (0, 2, 120)
    # Nearly every value differs, or is an address: kept and shown, no filter.
    assert by_name["extra.code"].attribute is None
    assert by_name["extra.sheet"].attribute is None


def test_one_value_of_another_type_decides() -> None:
    items = [product(i) for i in range(60)]
    proposed, _ = propose_attributes([*items, product(60, released="soon", new="perhaps")])
    assert (proposed["released"].type, proposed["new"].type) == ("keyword", "keyword")


def test_the_six_are_always_proposed_and_names_do_not_clash() -> None:
    item = Item(title="x", people={"score": ("Bo",), "year": ("Ann",)}, extra={"year": "MCM"})
    proposed, rows = propose_attributes([item])
    assert proposed.items() >= DEFAULT_ATTRIBUTES.items()
    assert {one.source for name, one in proposed.items() if name not in DEFAULT_ATTRIBUTES} == {"people.score", "people.year", "extra.year"}
    assert {"people_score", "people_year", "extra_year"} <= proposed.keys()
    assert next(row for row in rows if row.name == "language").missing == 1


def test_a_declaration_is_measured() -> None:
    declared = {"price": Attribute(type="integer", source="numbers.price"), "size": Attribute(type="keyword", source="extra.size")}
    proposed, rows = propose_attributes([product(i) for i in range(10)], declared)
    assert proposed == declared
    price, size = rows[:2]
    assert (price.missing, price.unread, price.distinct) == (5, 5, 5)
    assert size.missing == 10
    assert "extra.colour" in {row.name for row in rows if row.attribute is None}


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    declared = DEFAULT_ATTRIBUTES | {"location": Attribute(type="geo", source=("numbers.lat", "numbers.lng"))}
    path = tmp_path / "attributes.yaml"
    path.write_text(as_yaml(declared), encoding="utf-8")
    assert read_declaration(path, {}) == declared


def test_a_source_may_be_a_column(tmp_path: Path) -> None:
    path = tmp_path / "attributes.yaml"
    path.write_text("attributes: {colour: {type: keyword, source: Main Colour}, place: {type: geo, source: [Lat, numbers.lng]}}")
    read = read_declaration(path, {"main_colour": "extra.main_colour", "Lat": "numbers.lat"})
    assert read["colour"].source == "extra.main_colour"
    assert read["place"].source == ("numbers.lat", "numbers.lng")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "can't be read as YAML"),
        ("[]", "has no attributes"),
        ("attributes: {Colour: {type: keyword, source: extra.x}}", "Colour: can't be a name"),
        ("attributes: {score: {type: keyword, source: extra.x}}", "score: can't be a name"),
        ("attributes: {colour: keyword}", "colour: has neither type nor source"),
        ("attributes: {colour: {type: colour, source: extra.x}}", "colour: type: Input should be 'keyword'"),
        ("attributes: {colour: {type: float, source: extra.x, facet: true}}", "colour: facet: values of type float can't be counted"),
        (
            "attributes: {colour: {type: keyword, source: Colour}}",
            "source 'Colour' is neither a place in an item, like extra.size, nor a column",
        ),
        ("attributes: {colour: {type: keyword}}", "colour: source"),
        ("attributes: {colour: {type: keyword, source: extra.x, label: y}}", "colour: label"),
        ("attributes:\n" + "".join(f"  a{i}: {{type: text, source: title}}\n" for i in range(65)), "65 attributes, at most 64"),
    ],
)
def test_a_wrong_declaration_says_where(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "attributes.yaml"
    path.write_text(text)
    with pytest.raises(SourceError) as refused:
        read_declaration(path, {"Size": "extra.size"})
    assert problem in str(refused.value)


def test_changes_are_told() -> None:
    before = {"a": Attribute(type="keyword", source="extra.a"), "b": Attribute(type="keyword", source="extra.b")}
    after = {"b": Attribute(type="integer", source="extra.b"), "c": Attribute(type="keyword", source="extra.c")}
    assert changes(before, after) == [
        "attribute a is gone: requests that filter by it will fail",
        "attribute b was of type keyword and is of type integer now: requests that filter by it may fail",
    ]
