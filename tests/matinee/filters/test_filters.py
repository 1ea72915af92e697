"""The form of a filter: what is refused and where, what is the same, and how it travels. Its meaning: `index/test_conditions`."""

import json
import pickle
import re
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from matinee.catalogue.declaration import read_declaration
from matinee.errors import FilterError
from matinee.filters import ItemFilter
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute, AttributeType, stored_values
from matinee.filters.parser import _OPERATORS, MAX_CONDITIONS, MAX_FILTER_VALUES
from matinee.index.types import item_payload
from matinee.items import MAX_FACT, Item

DECLARED = DEFAULT_ATTRIBUTES | {
    "new": Attribute(type="boolean", source="extra.new"),
    "released": Attribute(type="datetime", source="extra.released"),
    "place": Attribute(type="geo", source="extra.place"),
    "about": Attribute(type="text", source="overview"),
}


def nested(depth: int) -> dict[str, Any]:
    return {"kind": ["film"]} if depth == 0 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (nested(6), "not.not.not.not.not.not"),
        ({"and": {}}, "and"),
        ({"or": []}, "or"),
        ({"and": [{}]}, "and.0"),
        ({"or": [{"genres": []}]}, "or.0"),
        ({"not": []}, "not"),
        ({"and": ["x"]}, "and.0"),
        ({"kind": "film"}, "kind"),
        ({"kind": {"any": []}}, "kind.any"),
        ({"kind": {"any": "film"}}, "kind.any"),
        ({"kind": {"like": ["film"]}}, "kind.like"),
        ({"kind": ["film", " "]}, "kind.1"),
        ({"kind": ["x" * MAX_FACT, "x" * (MAX_FACT + 1)]}, "kind.1"),
        ({"kind": [None]}, "kind.0"),
        ({"kind": ["x"] * (MAX_FILTER_VALUES + 1)}, "kind"),
        ({"and": [{"kind": ["x"]}] * (MAX_CONDITIONS + 1)}, f"and.{MAX_CONDITIONS}.kind"),
        ({"and": [{"year": {"gte": 0}}] * (MAX_CONDITIONS + 1)}, f"and.{MAX_CONDITIONS}.year"),
        ({"year": {"gte": 2, "lt": 2}}, "year"),
        ({"year": {"gt": 2, "lte": 2}}, "year"),
        ({"released": {"gte": "2020-01-02", "lte": "2020-01-01"}}, "released"),
        ({"released": {"gte": "2020-01-02", "lte": 3}}, "released"),
        ({"released": {"gte": "soon"}}, "released.gte"),
        ({"year": {"gte": float("nan")}}, "year.gte"),
        ({"year": {"gte": 10**400}}, "year.gte"),
        ({"year": {"gte": True}}, "year.gte"),
        ({"year": {"exists": 1}}, "year.exists"),
        ({"place": {"near": {"lat": 1, "lon": 2}}}, "place.near"),
        ({"place": {"near": {"lat": 91, "lon": 2, "radius_m": 1}}}, "place.near.lat"),
        ({"about": {"match": "?!"}}, "about.match"),
        ({"and": [{"about": {"match": "a " * 100}}] * 11}, "and.10.about.match"),
    ],
)
def test_a_malformed_filter_says_where(body: dict[str, Any], path: str) -> None:
    with pytest.raises(FilterError) as refused:
        ItemFilter(**body)
    assert refused.value.path == path
    assert str(refused.value).startswith(f"filter.{path}: ")


@pytest.mark.parametrize(
    "body",
    [
        {"colour": ["red"]},
        {"colour": {"exists": True}},
        {"not": {"colour": ["red"]}},
        {"year": ["1999"]},
        {"year": [1999.5]},
        {"year": [True]},
        {"new": [1]},
        {"rating": [5]},
        {"kind": {"gte": 1}},
        {"year": {"gte": "2020-01-01"}},
        {"released": {"gte": 2020}},
        {"released": ["2020-01-01"]},
        {"about": ["word"]},
        {"kind": {"match": "word"}},
        {"year": {"near": {"lat": 1, "lon": 2, "radius_m": 3}}},
    ],
)
def test_a_wrong_name_or_type_names_those_there_are(body: dict[str, Any]) -> None:
    with pytest.raises(FilterError, match=r"kind \(keyword\), .*year \(integer\), .*about \(text\)"):
        ItemFilter(**body).condition(DECLARED)


def test_bare_forms_mean_what_they_did() -> None:
    same = [
        ({"genres": ["Drama"]}, {"genres": {"any": ["Drama"]}}),
        ({"genres_all": ["A", "B"]}, {"genres": {"all": ["A", "B"]}}),
        ({"genres_none": ["A"]}, {"not": {"genres": ["A"]}}),
        ({"year": {"gte": 1999.5, "lte": None}}, {"year": {"gt": 1999}}),
        ({"genres": [], "year": None, "rating": {}}, {}),
    ]
    for old, new in same:
        assert ItemFilter(**old).condition() == ItemFilter(**new).condition()
    assert ItemFilter(**same[-1][0]).is_empty()


def test_depth_five_is_allowed() -> None:
    assert ItemFilter(**nested(5)).condition() is not None


def test_filters_can_be_compared_hashed_and_sent() -> None:
    body = {"and": [{"genres": {"any": ["Drama"]}}, {"place": {"near": {"lat": 1, "lon": 2, "radius_m": 3}}}], "self": ["x"]}
    one, other = ItemFilter.parse(body), pickle.loads(pickle.dumps(ItemFilter.parse(body)))
    assert one == other != ItemFilter()
    assert hash(one) == hash(other)
    assert one.body == body


ROOT = Path(__file__).parents[3]


def test_the_documented_examples_pass_as_many_items_as_they_say() -> None:
    rows = re.findall(r"^\| `(\{.+?\})` \| (\d+) \|", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    groceries = ROOT / "examples" / "groceries"
    attributes = read_declaration(groceries / "attributes.yaml", {})
    payloads = []
    for line in (groceries / "groceries.jsonl").read_text(encoding="utf-8").splitlines():
        item = Item.model_validate_json(line)
        payloads.append(item_payload(item, origin="file", revision=0) | {"attributes": stored_values(item.facts(), attributes)})
    assert len(rows) == 15
    for body, count in rows:
        assert (body, sum(not ItemFilter.parse(json.loads(body)).unmet(payload, attributes) for payload in payloads)) == (
            body,
            int(count),
        )


def test_the_documented_operators_take_the_types_that_the_table_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Filter\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([\w, ]*?) ?\|", page, re.MULTILINE)
    documented = {name: set(types.split(", ")) for names, types in rows for name in re.findall(r"\w+", names)}
    groups = {name for name, types in documented.items() if types == {""}}
    assert groups == {"and", "or", "not"}
    attributes = {kind: Attribute(type=kind, source=f"extra.{kind}") for kind in get_args(AttributeType)}
    values: dict[str, Any] = {
        "keyword": "x",
        "text": "x",
        "integer": 1,
        "float": 1.5,
        "boolean": True,
        "datetime": "2024-01-01",
        "geo": "x",
    }
    taken: dict[str, set[str]] = {}
    for operator, kind in product((*_OPERATORS, "like"), attributes):
        near = {"lat": 1, "lon": 2, "radius_m": 3}
        operand = {"exists": True, "missing": True, "match": "x", "near": near}.get(operator, values[kind])
        body = {kind: {operator: [operand] if operator in ("any", "all", "none") else operand}}
        with suppress(FilterError):
            ItemFilter(**body).condition(attributes)
            taken.setdefault(operator, set()).add(kind)
    everywhere = {name: set(attributes) if types == {"all"} else types for name, types in documented.items() if name not in groups}
    assert taken == everywhere
