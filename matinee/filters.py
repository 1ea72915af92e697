"""The filter: which items may be answered, as JSON, and the conditions that it means under a catalogue's attributes.

    {"and": [{"or": [{"genres": {"any": ["Drama"]}}, {"language": ["fr"]}]}, {"not": {"year": {"lt": 1990}}}]}

Its form is checked at once (`ItemFilter`), names and types where the attributes are known (`ItemFilter.condition`). Does not know engines.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from matinee.attributes import DEFAULT_ATTRIBUTES, Attribute, Attributes, describe, moment, payload_key, words
from matinee.conditions import All, AnyOf, Condition, During, Equal, Missing, Near, Not, Some, Within, holds
from matinee.errors import FilterError
from matinee.items import MAX_NUMBER, Name

MAX_DEPTH = 5
"""How deep `and`, `or` and `not` may be nested."""
MAX_FILTER_VALUES = 1000
MAX_CONDITIONS = 200
MAX_RADIUS_M = 20_100_000.0
"""Half of the earth's circumference, and a little more."""

_LIMITS = ("gte", "gt", "lte", "lt")
_LISTS = ("any", "all", "none")
_OPERATORS = (*_LISTS, *_LIMITS, "exists", "missing", "near", "match")
# How requests wrote them before there were operators.
_OLD_NAMES = {"genres_all": ("genres", "all"), "genres_none": ("genres", "none")}
_NAME: TypeAdapter[str] = TypeAdapter(Name)

Plain = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Wish:
    """One operator on one attribute. `path` is where it stands, for errors."""

    path: str
    name: str
    operator: str
    operand: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`and`, `or` or `not` of others."""

    operator: str
    of: tuple["Wish | Group", ...]


Node = Wish | Group


class ItemFilter:
    """Which items may be answered: all of its entries hold together. Plain data, which can be compared and hashed.

    `ItemFilter(genres=["Drama"], year={"gte": 1990})` is the JSON object of the same entries. Raises `FilterError` for a malformed one.
    """

    __slots__ = ("_entries", "body", "conditions")
    body: dict[str, Any]
    conditions: int
    """How many conditions an engine checks at most: each value of `all` and each word of `match` is one."""

    def __init__(self, /, **body: Any) -> None:
        self.body = body
        self._entries = tuple(_Parser().entries(body, "", 0))
        self.conditions = sum(_conditions(node) for _, node in self._entries)

    def is_empty(self) -> bool:
        return not self._entries

    def condition(self, attributes: Attributes = DEFAULT_ATTRIBUTES) -> Condition | None:
        """What it means, None for nothing. Raises `FilterError` for names and types that the attributes don't have."""
        conditions = [_resolve(node, attributes) for _, node in self._entries]
        return None if not conditions else conditions[0] if len(conditions) == 1 else All(tuple(conditions))

    def failed(self, payload: Mapping[str, Any], attributes: Attributes = DEFAULT_ATTRIBUTES) -> list[str]:
        """The entries that an item does not meet, by its index payload; none where it passes. All engines must agree with it."""
        unmet = [name for name, node in self._entries if not holds(_resolve(node, attributes), payload)]
        return list(dict.fromkeys(unmet))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemFilter) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"ItemFilter(**{self.body!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.body,)

    @classmethod
    def parsed(cls, body: object) -> "ItemFilter":
        """The filter of a JSON value. Raises `FilterError`."""
        if not isinstance(body, Mapping):
            raise FilterError("", 'not an object: write it like {"genres": ["Drama"]}')
        return _restored(body)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> "ItemFilter":
            try:
                return value if isinstance(value, ItemFilter) else cls.parsed(value)
            except FilterError as error:
                # The path goes with the place of the filter in its request.
                raise PydanticCustomError("filter", "{problem}", {"problem": error.problem, "path": error.path}) from None

        plain = core_schema.plain_serializer_function_ser_schema(lambda filter: filter.body)
        return core_schema.no_info_plain_validator_function(validate, serialization=plain)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _SCHEMA


def _conditions(node: Node) -> int:
    if isinstance(node, Group):
        return sum(map(_conditions, node.of))
    match node.operator:
        case "all":
            return len(node.operand)
        case "match":
            return len(words(node.operand[0]))
    return 1


def _restored(body: Mapping[str, Any]) -> ItemFilter:
    # Any text may be a name in JSON, as `self` is.
    return ItemFilter(**{str(name): value for name, value in body.items()})


class _Parser:
    """Reads one filter, and counts what it holds."""

    def __init__(self) -> None:
        self._values = 0
        self._conditions = 0

    def entries(self, body: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Node]]:
        for name, value in body.items():
            where = f"{path}.{name}" if path else name
            if name in ("and", "or", "not"):
                yield name, self._group(name, value, where, depth + 1)
            else:
                attribute, bare = _OLD_NAMES.get(name, (name, "any"))
                yield from ((name, wish) for wish in self._wishes(attribute, bare, value, where))

    def _group(self, operator: str, value: object, path: str, depth: int) -> Group:
        if depth > MAX_DEPTH:
            raise FilterError(path, f"and, or and not are nested deeper than {MAX_DEPTH}: write it flatter")
        parts = [value] if operator == "not" else value
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise FilterError(path, 'not a list of filters with at least one: write it like [{"genres": ["Drama"]}]')
        return Group(operator, tuple(self._part(part, path if operator == "not" else f"{path}.{i}", depth) for i, part in enumerate(parts)))

    def _part(self, part: object, path: str, depth: int) -> Node:
        if not isinstance(part, Mapping):
            raise FilterError(path, 'not an object: write it like {"genres": ["Drama"]}')
        nodes = [node for _, node in self.entries(part, path, depth)]
        if not nodes:
            raise FilterError(path, "has no condition: give it one, or leave it out")
        return nodes[0] if len(nodes) == 1 else Group("and", tuple(nodes))

    def _wishes(self, name: str, bare: str, value: object, path: str) -> Iterator[Wish]:
        if value is None:
            return
        if isinstance(value, list | tuple):
            # An empty list was always the same as none.
            if value:
                yield self._wish(name, bare, value, path, path)
            return
        if not isinstance(value, Mapping):
            raise FilterError(path, f"neither a list of values nor an object with some of {', '.join(_OPERATORS)}")
        if unknown := [str(key)[:100] for key in value if key not in _OPERATORS]:
            raise FilterError(f"{path}.{unknown[0]}", f"no such operator; there are {', '.join(_OPERATORS)}")
        limits = {limit: value[limit] for limit in _LIMITS if value.get(limit) is not None}
        if limits:
            yield Wish(path, name, "range", self._range(limits, path))
        for operator in (operator for operator in value if operator not in _LIMITS):
            yield self._wish(name, operator, value[operator], path, f"{path}.{operator}")

    def _count(self, where: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(where, f"more than {MAX_CONDITIONS} conditions in one filter: send fewer")

    def _wish(self, name: str, operator: str, operand: object, path: str, where: str) -> Wish:
        self._count(where)
        match operator:
            case "any" | "all" | "none":
                return Wish(path, name, operator, self._list(operand, where))
            case "exists" | "missing":
                if not isinstance(operand, bool):
                    raise FilterError(where, "neither true nor false")
                return Wish(path, name, "missing" if (operator == "missing") == operand else "exists", ())
            case "match":
                text = _text(operand, where)
                if not any(c.isalnum() for c in text):
                    raise FilterError(where, "has no word to match")
                self._count_values(len(words(text)), where)
                return Wish(path, name, operator, (text,))
        return Wish(path, name, operator, _circle(operand, where))

    def _count_values(self, values: int, path: str) -> None:
        self._values += values
        if self._values > MAX_FILTER_VALUES:
            raise FilterError(path, f"more than {MAX_FILTER_VALUES:,} values in one filter: send fewer, or filter by something else")

    def _list(self, values: object, path: str) -> tuple[Plain, ...]:
        if not isinstance(values, list | tuple) or not values:
            raise FilterError(path, "not a list with at least one value: give it one, or leave it out")
        self._count_values(len(values), path)
        return tuple(_plain(value, f"{path}.{i}") for i, value in enumerate(values))

    def _range(self, limits: dict[str, Any], path: str) -> tuple[tuple[str, float | str], ...]:
        self._count(path)
        read = {limit: _limit(value, f"{path}.{limit}") for limit, value in limits.items()}
        if len({isinstance(value, str) for value in read.values()}) > 1:
            raise FilterError(path, "a range from a number to a date: give both ends in one form")
        for low in ("gte", "gt"):
            for high in ("lte", "lt"):
                if low in read and high in read and _is_empty(read[low], read[high], closed=(low, high) == ("gte", "lte")):
                    above = "is above" if read[low] != read[high] else "leaves nothing below"
                    raise FilterError(path, f"an empty range: {low} {limits[low]} {above} {high} {limits[high]}")
        return tuple(read.items())


def _is_empty(low: Any, high: Any, *, closed: bool) -> bool:
    return bool(low > high or (low == high and not closed))


def _plain(value: object, path: str) -> Plain:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, path)
    return _text(value, path)


def _number(value: int | float, path: str) -> int | float:
    if not abs(value) <= MAX_NUMBER:  # NaN, too, is not
        raise FilterError(path, f"not a number between {-MAX_NUMBER:g} and {MAX_NUMBER:g}")
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise FilterError(path, "not a text, a number, true or false")
    try:
        return _NAME.validate_python(value)
    except ValidationError as error:
        raise FilterError(path, str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")) from None


def _limit(value: object, path: str) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, path)
    read = moment(value) if isinstance(value, str) else None
    if read is None:
        raise FilterError(path, "neither a number nor a date like 2024-05-31 or 2024-05-31T12:00:00Z")
    return read


def _circle(value: object, path: str) -> tuple[float, float, float]:
    limits = {"lat": (-90.0, 90.0), "lon": (-180.0, 180.0), "radius_m": (0.0, MAX_RADIUS_M)}
    if not isinstance(value, Mapping) or set(value) != set(limits):
        raise FilterError(path, 'not a circle: write it like {"lat": 48.86, "lon": 2.35, "radius_m": 5000}')
    for name, (low, high) in limits.items():
        number = value[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
            raise FilterError(f"{path}.{name}", f"not a number between {low:g} and {high:g}")
    return float(value["lat"]), float(value["lon"]), float(value["radius_m"])


def _resolve(node: Node, attributes: Attributes) -> Condition:
    if isinstance(node, Group):
        parts = tuple(_resolve(part, attributes) for part in node.of)
        return Not(parts[0]) if node.operator == "not" else Some(parts) if node.operator == "or" else All(parts)
    attribute = attributes.get(node.name)
    if attribute is None:
        raise FilterError(node.path, f"no attribute of this catalogue; there are: {describe(attributes)}")
    key = payload_key(node.name, attribute)
    match node.operator:
        case "exists":
            return Not(Missing(key))
        case "missing":
            return Missing(key)
        case "range":
            return _range(node, attribute, key, attributes)
        case "near" if attribute.type == "geo":
            return Near(key, *node.operand)
        case "match" if attribute.type == "text":
            return All(tuple(Equal(key, word) for word in words(node.operand[0])))
        case "any" | "all" | "none" if attribute.type in _VALUES:
            return _listed(node, attribute, key, attributes)
    raise _wrong_type(node, attribute, attributes, f"{node.operator} can't be asked of it")


_VALUES: dict[str, type] = {"keyword": str, "integer": int, "boolean": bool}


def _listed(node: Wish, attribute: Attribute, key: str, attributes: Attributes) -> Condition:
    kind = _VALUES[attribute.type]
    # JSON has one kind of number: 3.0 is a whole one.
    values = tuple(int(v) if kind is int and isinstance(v, float) and v.is_integer() else v for v in node.operand)
    for value in values:
        if type(value) is not kind:
            raise _wrong_type(node, attribute, attributes, f"{value!r} is no value of it")
    if node.operator == "all":
        return All(tuple(Equal(key, value) for value in values))
    # No engine takes a list of booleans.
    found = Some(tuple(Equal(key, value) for value in values)) if kind is bool else AnyOf(key, values)
    return Not(found) if node.operator == "none" else found


def _range(node: Wish, attribute: Attribute, key: str, attributes: Attributes) -> Condition:
    limits = dict(node.operand)
    dates = any(isinstance(value, str) for value in limits.values())
    match attribute.type:
        case "datetime" if dates:
            return During(key, **limits)
        case "float" if not dates:
            return Within(key, **limits)
        case "integer" if not dates:
            # An index of integers cuts a fractional limit towards zero, which would let 1999 pass "at least 1999.5".
            low = [math.ceil(limits["gte"])] if "gte" in limits else []
            low += [math.floor(limits["gt"]) + 1] if "gt" in limits else []
            high = [math.floor(limits["lte"])] if "lte" in limits else []
            high += [math.ceil(limits["lt"]) - 1] if "lt" in limits else []
            return Within(key, gte=max(low, default=None), lte=min(high, default=None))
    raise _wrong_type(node, attribute, attributes, f"a range of {'dates' if dates else 'numbers'} can't be asked of it")


def _wrong_type(node: Wish, attribute: Attribute, attributes: Attributes, problem: str) -> FilterError:
    return FilterError(node.path, f"{node.name} is of type {attribute.type}, and {problem}; the attributes are: {describe(attributes)}")


_VALUE_LIST = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}}
_LIMIT = {"anyOf": [{"type": "number"}, {"type": "string", "description": "a date or a time, ISO 8601"}, {"type": "null"}]}
_SCHEMA: JsonSchemaValue = {
    "type": "object",
    "description": "attributes and what is asked of them, all of which must hold: see docs/api.md#filter. `and` and `or` take a list of "
    "filters, `not` takes one. A bare list means `any`.",
    "properties": {
        "and": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "or": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "not": {"type": "object", "minProperties": 1},
    },
    "additionalProperties": {
        "anyOf": [
            _VALUE_LIST,
            {
                "type": "object",
                "properties": {
                    **dict.fromkeys(_LISTS, _VALUE_LIST),
                    **dict.fromkeys(_LIMITS, _LIMIT),
                    "exists": {"type": "boolean"},
                    "missing": {"type": "boolean"},
                    "match": {"type": "string", "description": "words, all of which the text has"},
                    "near": {
                        "type": "object",
                        "properties": {name: {"type": "number"} for name in ("lat", "lon", "radius_m")},
                        "required": ["lat", "lon", "radius_m"],
                    },
                },
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "examples": [
        {"genres": ["Drama"], "year": {"gte": 1990}},
        {
            "and": [
                {"or": [{"genres": {"any": ["Science Fiction"]}}, {"language": {"any": ["fr"]}}]},
                {"not": {"year": {"lt": 1990}}},
            ]
        },
    ],
}
