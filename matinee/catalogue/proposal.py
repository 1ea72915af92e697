"""Which attributes a catalogue's items could have: a proposal from their facts, or what they have of a declaration.

Does not read files (`reader`, `declaration`). Six attributes are in every proposal (`attributes.DEFAULT_ATTRIBUTES`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matinee.catalogue.columns import squash
from matinee.filters.attributes import (
    COUNTABLE,
    DEFAULT_ATTRIBUTES,
    MAX_ATTRIBUTES,
    RESERVED,
    Attribute,
    Attributes,
    AttributeType,
    payload_key,
)
from matinee.items import MAX_NAME, Item

MAX_DISTINCT = 10_000
"""Different values that are counted."""
_MAX_FACET = 1000
_MAX_EXAMPLE = 60
# A keyword whose values nearly all differ is a name, an address or a key: nobody filters by it.
_UNIQUE, _FEW = 0.9, 50
_WORDS = 8
_GUESSES: tuple[AttributeType, ...] = ("integer", "float", "boolean", "datetime")
_TRIED = {type: Attribute(type=type, source="extra.x") for type in (*_GUESSES, "geo")}
_LATITUDES, _LONGITUDES = ("lat", "latitude"), ("lon", "lng", "long", "longitude")
_PLACES = ("geo", "location", "coordinates", "coords", "latlon", "latlng", "position", "geopoint", "geolocation")


@dataclass
class AttributeStats:
    """What a source's items have in one place: in how many it is missing, how many of its values differ and can't be read.

    `attribute` is None where it is kept and shown, but no filter knows it.
    """

    name: str
    source: str
    attribute: Attribute | None
    missing: int
    items: int
    distinct: int
    unread: int = 0
    example: str = ""

    def as_json(self) -> dict[str, Any]:
        """One row of the table, plain."""
        declared = {} if self.attribute is None else self.attribute.model_dump(mode="json")
        counts = {name: getattr(self, name) for name in ("missing", "items", "distinct", "unread", "example")}
        return {"name": self.name, "source": self.source, "declared": self.attribute is not None} | declared | counts


@dataclass
class _Facts:
    """The facts of all items in one place."""

    items: int = 0
    values: int = 0
    words: int = 0
    longest: int = 0
    many: bool = False
    distinct: set[Any] = field(default_factory=set)
    example: str = ""
    types: list[AttributeType] = field(default_factory=lambda: [*_GUESSES, "geo"])

    def observe(self, fact: Any) -> None:
        """The fact of one more item."""
        values = [fact] if isinstance(fact, str | int | float) else list(fact)
        self.items += bool(values)
        self.values += len(values)
        self.many |= len(values) > 1
        # Of a point, both numbers together are one value.
        self.types = [type for type in self.types if all(_fits(type, value) for value in ([fact] if type == "geo" else values))]
        for value in values:
            self.example = self.example or str(value)[:_MAX_EXAMPLE]
            if isinstance(value, str):
                self.words += len(value.split())
                self.longest = max(self.longest, len(value))
            if len(self.distinct) < MAX_DISTINCT:
                self.distinct.add(value)


def propose_attributes(items: Iterable[Item], declared: Attributes | None = None) -> tuple[dict[str, Attribute], list[AttributeStats]]:
    """The attributes of the items, and a row for each and for every other fact. `declared` is taken as it is; None: a proposal."""
    places: dict[str, _Facts] = {source: _Facts() for source in (str(one.source) for one in DEFAULT_ATTRIBUTES.values())}
    coverage = {name: _Coverage(attribute) for name, attribute in (declared or {}).items()}
    count = 0
    for item in items:
        count += 1
        facts = item.facts()
        for source, fact in _facts(facts):
            places.setdefault(source, _Facts()).observe(fact)
        for one in coverage.values():
            one.observe(facts)
    attributes = _propose(places) if declared is None else dict(declared)
    used = {source for one in attributes.values() for source in ([one.source] if isinstance(one.source, str) else one.source)}
    rows = []
    for name, attribute in attributes.items():
        if declared is not None:
            rows.append(coverage[name].row(name, count))
        else:
            rows.append(_row(name, places, attribute, count))
    others = [(source, seen) for source, seen in places.items() if source not in used and seen.items]
    rows += [
        AttributeStats(source, source, None, count - seen.items, count, len(seen.distinct), example=seen.example) for source, seen in others
    ]
    return attributes, rows


def changes(before: Attributes, after: Attributes) -> list[str]:
    """What requests notice of a declaration that replaces another."""
    notes = [f"attribute {name} is gone: requests that filter by it will fail" for name in before if name not in after]
    notes += [
        f"attribute {name} was of type {before[name].type} and is of type {attribute.type} now: requests that filter by it may fail"
        for name, attribute in after.items()
        if name in before and before[name].type != attribute.type
    ]
    return notes


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("kind", "genres", "language", "year"):
        if name in facts:
            yield name, facts[name]
    for group in ("numbers", "people", "extra"):
        for name, fact in facts.get(group, {}).items():
            yield f"{group}.{name}", fact


def _fits(type: AttributeType, fact: Any) -> bool:
    return bool(_TRIED[type].values({"extra": {"x": fact}})[0])


def _propose(places: Mapping[str, _Facts]) -> dict[str, Attribute]:
    attributes = dict(DEFAULT_ATTRIBUTES)
    known = {str(one.source) for one in DEFAULT_ATTRIBUTES.values()}
    if pair := _coordinates(places):
        attributes["location"] = Attribute(type="geo", source=pair)
        known |= set(pair)
    # The facts that most items have, where there are more than an index has room for.
    for source, seen in sorted(places.items(), key=lambda place: -place[1].items):
        attribute = None if source in known else _guess(source, seen)
        if attribute is not None and len(attributes) < MAX_ATTRIBUTES:
            attributes[_name(source, attributes)] = attribute
    return attributes


def _coordinates(places: Mapping[str, _Facts]) -> tuple[str, str] | None:
    for latitude, longitude in ((lat, lon) for lat in _LATITUDES for lon in _LONGITUDES):
        pair = f"numbers.{latitude}", f"numbers.{longitude}"
        if all(source in places for source in pair):
            return pair
    return None


def _guess(source: str, seen: _Facts) -> Attribute | None:
    group, _, name = source.partition(".")
    if group == "people":
        return Attribute(type="keyword", source=source, many=True, facet=len(seen.distinct) <= _MAX_FACET)
    if "geo" in seen.types and squash(name) in _PLACES:
        return Attribute(type="geo", source=source)
    type: AttributeType = next((guess for guess in _GUESSES if guess in seen.types), "keyword")
    if type == "keyword":
        if seen.longest > MAX_NAME or seen.words > _WORDS * seen.values:
            return Attribute(type="text", source=source)
        unique = not seen.many and seen.values > _FEW and len(seen.distinct) > _UNIQUE * min(seen.values, MAX_DISTINCT)
        if unique or "://" in seen.example:
            return None
    facet = type in ("keyword", "boolean") and type in COUNTABLE and len(seen.distinct) <= _MAX_FACET
    return Attribute(type=type, source=source, many=seen.many, facet=facet)


def _name(source: str, taken: Mapping[str, Attribute]) -> str:
    group, _, name = source.partition(".")
    return next(one for one in (name, f"{group}_{name}"[:40], f"{name[:38]}_2") if one not in taken and one not in RESERVED)


def _row(name: str, places: Mapping[str, _Facts], attribute: Attribute, count: int) -> AttributeStats:
    sources = [attribute.source] if isinstance(attribute.source, str) else attribute.source
    seen = min((places[source] for source in sources), key=lambda seen: seen.items)
    return AttributeStats(name, ", ".join(sources), attribute, count - seen.items, count, len(seen.distinct), example=seen.example)


class _Coverage:
    """What items have of a declared attribute."""

    def __init__(self, attribute: Attribute) -> None:
        self._attribute = attribute
        self._items = self._unread = 0
        self._distinct: set[str] = set()
        self._example = ""

    def observe(self, facts: Mapping[str, Any]) -> None:
        # The payload has the facts of the six as they are.
        values, unread = self._attribute.values(facts)
        self._items += bool(values)
        self._unread += unread
        for value in map(str, values):
            self._example = self._example or value[:_MAX_EXAMPLE]
            if len(self._distinct) < MAX_DISTINCT:
                self._distinct.add(value)

    def row(self, name: str, count: int) -> AttributeStats:
        source = self._attribute.source if isinstance(self._attribute.source, str) else ", ".join(self._attribute.source)
        missing = count - self._items
        return AttributeStats(name, source, self._attribute, missing, count, len(self._distinct), self._unread, self._example)


def sort_for_display(rows: Sequence[AttributeStats]) -> list[AttributeStats]:
    """The rows that say something: without those of the six that no item has."""
    return [
        row for row in rows if row.missing < row.items or (row.attribute is not None and payload_key(row.name, row.attribute) != row.name)
    ]
