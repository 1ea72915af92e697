"""Attributes: what a catalogue can filter, sort and count by. A declaration says for each its type and where its values come from.

Here an item's facts become the values of its attributes. Does not know filters (`filters`), nor how a declaration is made (`catalogue`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from matinee.errors import UnknownAttributeError
from matinee.languages import catalogue_words
from matinee.languages.folding import fold
from matinee.patterns import pattern

AttributeType = Literal["keyword", "text", "integer", "float", "boolean", "datetime", "geo"]
COUNTABLE: tuple[AttributeType, ...] = ("keyword", "integer", "boolean")
"""Types whose values can be counted."""
SORTABLE: tuple[AttributeType, ...] = ("keyword", "integer", "float", "boolean", "datetime")

RESERVED = frozenset(("and", "or", "not", "genres_all", "genres_none", "score"))
"""Names with a meaning of their own in a filter or an order."""
MAX_ATTRIBUTES = 64
MAX_VALUES = 256
MAX_WORDS = 2000
"""Values of an attribute in one item, and different words of a text; further ones are not found."""
MAX_INTEGER = 10**15

STORED: Final = "attributes"
"""The payload's object that holds the values."""

_SOURCE = pattern(
    r"^(?:kind|title|overview|year|genres|language|(?:people|numbers|extra)\.[a-z][a-z0-9_]{0,39})$",
    "kind, title, overview, year, genres, language, or a place such as people.author, numbers.price or extra.colour",
)
AttributeSource = Annotated[str, StringConstraints(pattern=_SOURCE)]
_INTEGER = re.compile(r"[+-]?\d{1,16}(?:\.0+)?")
_FLOAT = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?")
# A tenth of a millimetre from the pole, because the engines' index finds nothing at the pole itself.
_NORTHMOST = 89.999999999
_BOOLEANS = dict.fromkeys(catalogue_words().true_words, True) | dict.fromkeys(catalogue_words().false_words, False)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?")

Value = str | int | float | bool | dict[str, float]


class Attribute(BaseModel):
    """One attribute: `source` is a field of the item, or a place in its `people`, `numbers` or `extra`.

    A point of type geo may come from two numbers, latitude first. `many`: an item may have several values; otherwise its first one counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: AttributeType
    source: AttributeSource | Annotated[tuple[AttributeSource, AttributeSource], Field(description="latitude and longitude")]
    many: bool = False
    facet: bool = Field(False, description="whether its values are listed with their counts")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.facet and self.type not in COUNTABLE:
            raise ValueError(f"facet: values of type {self.type} can't be counted; only those of {', '.join(COUNTABLE)}")
        if not isinstance(self.source, str) and self.type != "geo":
            raise ValueError(f"source: two places make a point of type geo, no {self.type}")
        return self

    def values(self, item: Mapping[str, Any]) -> tuple[list[Value], int]:
        """The values of an item (`Item.facts`), and how many of its facts have no such value. A text's values are its folded words."""
        facts = self._facts(item)
        read = [_READ[self.type](fact) for fact in facts]
        readable = [value for value in read if value is not None]
        if self.type == "text":
            words = dict.fromkeys(word for text in readable for word in text.split())
            return list(words)[:MAX_WORDS], 0
        distinct = [value for i, value in enumerate(readable) if value not in readable[:i]] if len(readable) < MAX_VALUES else readable
        return distinct[: MAX_VALUES if self.many else 1], len(read) - len(readable)

    def _facts(self, item: Mapping[str, Any]) -> list[Any]:
        if not isinstance(self.source, str):
            pair = [_fact(item, source) for source in self.source]
            return [] if None in pair else [pair]
        fact = _fact(item, self.source)
        if fact is None:
            return []
        # A reader splits "48.86, 2.35" at its comma.
        whole = not isinstance(fact, Sequence) or isinstance(fact, str) or (self.type == "geo" and _geo(fact) is not None)
        return [fact] if whole else list(fact)


Attributes = Mapping[str, Attribute]

DEFAULT_ATTRIBUTES: dict[str, Attribute] = {
    "kind": Attribute(type="keyword", source="kind", facet=True),
    "genres": Attribute(type="keyword", source="genres", many=True, facet=True),
    "language": Attribute(type="keyword", source="language", facet=True),
    "year": Attribute(type="integer", source="year"),
    "rating": Attribute(type="float", source="numbers.rating"),
    "votes": Attribute(type="float", source="numbers.votes"),
}
"""The attributes of an index without a declaration. Their values stand at the top of every payload."""


def payload_key(name: str, attribute: Attribute) -> str:
    """Where a payload has the values of an attribute."""
    known = DEFAULT_ATTRIBUTES.get(name)
    same = known is not None and (known.type, known.source) == (attribute.type, attribute.source)
    return name if same else f"{STORED}.{name}"


def stored_values(item: Mapping[str, Any], attributes: Attributes) -> dict[str, Any]:
    """Name -> value, or list of values, of those attributes that payloads don't have at their top; without those that the item lacks."""
    stored: dict[str, Any] = {}
    for name, attribute in attributes.items():
        if payload_key(name, attribute) != name and (values := attribute.values(item)[0]):
            stored[name] = values if attribute.many or attribute.type == "text" else values[0]
    return stored


def payload_values(payload: Mapping[str, Any], key: str) -> list[Any]:
    """The values that a payload has under `payload_key`."""
    group, _, name = key.rpartition(".")
    value = (payload.get(group) or {}).get(name) if group else payload.get(name)
    return [] if value is None else value if isinstance(value, list) else [value]


def facet_names(attributes: Attributes, names: Sequence[str] = (), *, what: str = "facets") -> list[str]:
    """The `names` attributes, or those that are declared as facets. Raises `UnknownAttributeError` for one that can't be counted."""
    for name in names:
        if name not in attributes or attributes[name].type not in COUNTABLE:
            countable = {name: one for name, one in attributes.items() if one.type in COUNTABLE}
            raise UnknownAttributeError(f"{what}: {name[:100]!r} can't be counted; the attributes that can are: {describe(countable)}")
    return list(names) or [name for name, attribute in attributes.items() if attribute.facet]


def describe(attributes: Attributes) -> str:
    """The attributes with their types, as errors name them."""
    return ", ".join(f"{name} ({attribute.type})" for name, attribute in attributes.items()) or "none"


def to_utc(text: str) -> str | None:
    """An ISO 8601 date or time as UTC in microseconds; None where it is none. A date is its first moment, a time without zone is UTC."""
    if not _DATE.fullmatch(text):
        return None
    try:
        read = datetime.fromisoformat(text)
        utc = read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def words(text: str) -> list[str]:
    """The words of a text as a filter compares them: without case, accents and punctuation."""
    return fold(text).split()


def _fact(item: Mapping[str, Any], source: str) -> Any:
    group, _, name = source.rpartition(".")
    return (item.get(group) or {}).get(name) if group else item.get(name)


def _keyword(fact: Any) -> str | None:
    if isinstance(fact, float) and fact.is_integer():
        fact = int(fact)
    # Without the blanks around it, as a filter's values are.
    return str(fact).strip() or None


def _text(fact: Any) -> str | None:
    return fold(str(fact)) or None


def _integer(fact: Any) -> int | None:
    if isinstance(fact, str):
        fact = float(fact) if _INTEGER.fullmatch(fact.strip()) else None
    whole = fact is not None and float(fact).is_integer() and abs(fact) <= MAX_INTEGER
    return int(fact) if whole else None


def _float(fact: Any) -> float | None:
    if isinstance(fact, str):
        fact = float(fact) if _FLOAT.fullmatch(fact.strip()) else math.nan
    value = float(fact)
    return value if math.isfinite(value) else None


def _boolean(fact: Any) -> bool | None:
    text = fact if isinstance(fact, str) else _keyword(fact) or ""
    return _BOOLEANS.get(text.strip().casefold())


def _datetime(fact: Any) -> str | None:
    return to_utc(fact.strip()) if isinstance(fact, str) else None


def _geo(fact: Any) -> dict[str, float] | None:
    parts = re.split(r"[,;\s]+", fact.strip()) if isinstance(fact, str) else fact if isinstance(fact, Sequence) else ()
    numbers = [_float(part) for part in parts if isinstance(part, str | int | float)]
    if len(numbers) != 2 or len(parts) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    latitude, longitude = numbers[0], numbers[1]
    return {"lat": min(latitude, _NORTHMOST), "lon": longitude} if abs(latitude) <= 90 and abs(longitude) <= 180 else None


_READ: dict[AttributeType, Any] = {
    "keyword": _keyword,
    "text": _text,
    "integer": _integer,
    "float": _float,
    "boolean": _boolean,
    "datetime": _datetime,
    "geo": _geo,
}
