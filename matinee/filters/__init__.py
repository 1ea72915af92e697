"""The filter: which items may be answered, as JSON, and the conditions that it means under a catalogue's attributes.

    {"and": [{"or": [{"genres": {"any": ["Drama"]}}, {"language": ["fr"]}]}, {"not": {"year": {"lt": 1990}}}]}

Its form is checked at once (`filters.parser`), names and types where the attributes are known (`filters.resolve`). Does not know engines.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from matinee.errors import FilterError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attributes
from matinee.filters.conditions import All, Condition, holds
from matinee.filters.parser import Parser, count_conditions
from matinee.filters.resolve import resolve
from matinee.filters.schema import SCHEMA


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
        self._entries = tuple(Parser().entries(body, "", 0))
        self.conditions = sum(count_conditions(node) for _, node in self._entries)

    def is_empty(self) -> bool:
        return not self._entries

    def condition(self, attributes: Attributes = DEFAULT_ATTRIBUTES) -> Condition | None:
        """What it means, None for nothing. Raises `FilterError` for names and types that the attributes don't have."""
        conditions = [resolve(node, attributes) for _, node in self._entries]
        return None if not conditions else conditions[0] if len(conditions) == 1 else All(tuple(conditions))

    def unmet(self, payload: Mapping[str, Any], attributes: Attributes = DEFAULT_ATTRIBUTES) -> list[str]:
        """The entries that an item does not meet, by its index payload; none where it passes. All engines must agree with it."""
        unmet = [name for name, node in self._entries if not holds(resolve(node, attributes), payload)]
        return list(dict.fromkeys(unmet))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemFilter) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"ItemFilter(**{self.body!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (self.body,)

    @classmethod
    def parse(cls, body: object) -> "ItemFilter":
        """The filter of a JSON value. Raises `FilterError`."""
        if not isinstance(body, Mapping):
            raise FilterError("", 'not an object: write it like {"genres": ["Drama"]}')
        return _build(body)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> "ItemFilter":
            try:
                return value if isinstance(value, ItemFilter) else cls.parse(value)
            except FilterError as error:
                # The path goes with the place of the filter in its request.
                raise PydanticCustomError("filter", "{problem}", {"problem": error.problem, "path": error.path}) from None

        plain = core_schema.plain_serializer_function_ser_schema(lambda filter: filter.body)
        return core_schema.no_info_plain_validator_function(validate, serialization=plain)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return SCHEMA


def _build(body: Mapping[str, Any]) -> ItemFilter:
    # Any text may be a name in JSON, as `self` is.
    return ItemFilter(**{str(name): value for name, value in body.items()})
