"""Conditions on stored items, in no engine's own types, and what each means (`holds`). Filters become these, and engines translate them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Any, cast

from matinee.filters.attributes import payload_values

_EARTH_M = 6371008.8


@dataclass(frozen=True, slots=True)
class Equal:
    """The field has this value, or its list holds it."""

    key: str
    value: str | bool | int


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field has one of these values, or its list holds one."""

    key: str
    values: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """The field has a value that is none of these, or its list holds one. No booleans: no engine takes a list of them."""

    key: str
    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """A number of the field lies between the limits that are not None."""

    key: str
    gte: float | None = None
    lte: float | None = None
    gt: float | None = None
    lt: float | None = None


@dataclass(frozen=True, slots=True)
class During:
    """A moment of the field lies between the limits that are not None, all of them as `attributes.to_utc` writes them."""

    key: str
    gte: str | None = None
    lte: str | None = None
    gt: str | None = None
    lt: str | None = None


@dataclass(frozen=True, slots=True)
class Near:
    """A point of the field lies within a circle: degrees, and metres along the earth's surface."""

    key: str
    lat: float
    lon: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Missing:
    """The field has no value."""

    key: str


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Each of these holds."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of these holds."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    of: "Condition"


Leaf = Equal | AnyOf | Other | Within | During | Near | Missing | HasId
Condition = Leaf | All | Some | Not


def any_of(key: str, values: Sequence[str | int]) -> Condition:
    """The field has one of these values: no engine takes a list of booleans."""
    if any(isinstance(value, bool) for value in values):
        return Some(tuple(Equal(key, value) for value in values))
    return AnyOf(key, cast(tuple[str, ...] | tuple[int, ...], tuple(values)))


def holds(condition: Condition, payload: Mapping[str, Any]) -> bool:
    """What a condition means, on an index payload: what every engine must agree with. An id is no part of a payload."""
    match condition:
        case All(of):
            return all(holds(one, payload) for one in of)
        case Some(of):
            return any(holds(one, payload) for one in of)
        case Not(of):
            return not holds(of, payload)
        case HasId():
            raise TypeError("a payload does not know its id")
    values = payload_values(payload, condition.key)
    match condition:
        case Missing():
            return not values
        case Equal(_, value):
            return any(_same(value, one) for one in values)
        case AnyOf(_, allowed):
            return any(_same(value, one) for value in allowed for one in values)
        case Other(_, others):
            return any(not any(_same(value, one) for value in others) for one in values)
        case Within() | During():
            return any(_between(condition, value) for value in values)
        case Near(_, lat, lon, radius_m):
            return any(_metres(lat, lon, value["lat"], value["lon"]) < radius_m for value in values)


def _same(value: str | bool | int, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _between(limits: Within | During, value: Any) -> bool:
    return (
        (limits.gte is None or value >= limits.gte)
        and (limits.lte is None or value <= limits.lte)
        and (limits.gt is None or value > limits.gt)
        and (limits.lt is None or value < limits.lt)
    )


def _metres(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """The haversine formula."""
    lat1, lon1, lat2, lon2 = map(radians, (lat1, lon1, lat2, lon2))
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return _EARTH_M * 2 * asin(sqrt(min(1.0, half)))
