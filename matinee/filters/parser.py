"""A filter's JSON -> its predicates, whose form is right. Does not know which attributes there are (`filters.resolve`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from matinee.errors import FilterError
from matinee.filters.attributes import to_utc, words
from matinee.items import MAX_FACT, MAX_NUMBER, PRINTABLE, TIDY

MAX_DEPTH = 5
"""How deep `and`, `or` and `not` may be nested."""
MAX_FILTER_VALUES = 1000
MAX_CONDITIONS = 200
MAX_RADIUS_M = 20_100_000.0
"""Half of the earth's circumference, and a little more."""

LIMITS = ("gte", "gt", "lte", "lt")
LISTS = ("any", "all", "none")
_OPERATORS = (*LISTS, *LIMITS, "exists", "missing", "near", "match")
# How requests wrote them before there were operators.
_OLD_NAMES = {"genres_all": ("genres", "all"), "genres_none": ("genres", "none")}
# As long as the longest fact that can be a keyword.
_TEXT: TypeAdapter[str] = TypeAdapter(
    Annotated[str, StringConstraints(min_length=1, max_length=MAX_FACT, strip_whitespace=True), PRINTABLE, TIDY]
)

Plain = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Predicate:
    """One operator on one attribute. `path` is where it stands, for errors."""

    path: str
    name: str
    operator: str
    operand: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`and`, `or` or `not` of others."""

    operator: str
    of: tuple["Predicate | Group", ...]


Node = Predicate | Group


class Parser:
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
                yield from ((name, predicate) for predicate in self._predicates(attribute, bare, value, where))

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

    def _predicates(self, name: str, bare: str, value: object, path: str) -> Iterator[Predicate]:
        if value is None:
            return
        if isinstance(value, list | tuple):
            # An empty list has always meant no condition.
            if value:
                yield self._predicate(name, bare, value, path, path)
            return
        if not isinstance(value, Mapping):
            raise FilterError(path, f"neither a list of values nor an object with some of {', '.join(_OPERATORS)}")
        if unknown := [str(key)[:100] for key in value if key not in _OPERATORS]:
            raise FilterError(f"{path}.{unknown[0]}", f"no such operator; there are {', '.join(_OPERATORS)}")
        limits = {limit: value[limit] for limit in LIMITS if value.get(limit) is not None}
        if limits:
            yield Predicate(path, name, "range", self._range(limits, path))
        for operator in (operator for operator in value if operator not in LIMITS):
            yield self._predicate(name, operator, value[operator], path, f"{path}.{operator}")

    def _count(self, where: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(where, f"more than {MAX_CONDITIONS} conditions in one filter: send fewer")

    def _predicate(self, name: str, operator: str, operand: object, path: str, where: str) -> Predicate:
        self._count(where)
        match operator:
            case "any" | "all" | "none":
                return Predicate(path, name, operator, self._list(operand, where))
            case "exists" | "missing":
                if not isinstance(operand, bool):
                    raise FilterError(where, "neither true nor false")
                return Predicate(path, name, "missing" if (operator == "missing") == operand else "exists", ())
            case "match":
                text = _text(operand, where)
                if not any(c.isalnum() for c in text):
                    raise FilterError(where, "has no word to match")
                self._count_values(len(words(text)), where)
                return Predicate(path, name, operator, (text,))
        return Predicate(path, name, operator, _circle(operand, where))

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
        return _TEXT.validate_python(value)
    except ValidationError as error:
        raise FilterError(path, str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")) from None


def _limit(value: object, path: str) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, path)
    read = to_utc(value) if isinstance(value, str) else None
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


def count_conditions(node: Node) -> int:
    if isinstance(node, Group):
        return sum(map(count_conditions, node.of))
    match node.operator:
        case "all":
            return len(node.operand)
        case "match":
            return len(words(node.operand[0]))
    return 1
