"""The item: one thing that can be recommended, and its stable id.

Does not know where items come from (`catalogue`), how they are embedded (`text`, `models`) or where they are stored (`index`).
"""

import re
import unicodedata
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from matinee.characters import tidy
from matinee.patterns import NAME

# Fixed for ever: every id of every catalogue is derived from it.
_NAMESPACE = uuid.UUID("6f0c1d0e-8a54-5d0b-9d7e-3c6a1b9e4f21")

MAX_NAME = 200
MAX_TITLE = 500
MAX_OVERVIEW = 20_000
MAX_FACT = 2000
MAX_LANGUAGE = 40
MAX_LIST = 64
MAX_ROLES = 16
MAX_FACTS = 32
MAX_FIELDS = 64
"""Of an object in a request, known or not."""
MIN_YEAR, MAX_YEAR = -5000, 3000
MAX_NUMBER = 1e15
NO_KIND = "item"
"""The kind of an item whose catalogue names none."""
MAX_TEXTS = 100
MAX_TEXT_CHARS = 50_000
"""Texts in one request to embed, and characters in each: no encoder reads further. Both sides of the API use these two."""


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")


def _printable(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("contains control characters (NUL or similar): remove them")
    return text


# Letters and signs that nothing is drawn for.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def _visible(text: str) -> str:
    if not any(unicodedata.category(sign)[0] in "LNPS" and sign not in _BLANK for sign in text):
        raise ValueError("has no character that can be seen: give it a name that people can read")
    return text


def small(value: object, entries: int) -> object:
    """The value, unless it is an object of more entries: each of a million wrong ones would become an error that takes time to tell."""
    if isinstance(value, Mapping) and len(value) > entries:
        raise PydanticCustomError("too_long", "has {count} entries; at most {most} are allowed", {"count": len(value), "most": entries})
    return value


# After the constraints in every annotation: pydantic would check a length before it strips, and let a blank through as "".
PRINTABLE = AfterValidator(_printable)
VISIBLE = AfterValidator(_visible)
# Before them: what is blank or short enough is judged without invisible characters. An id is no text: it stays as it is.
TIDY = BeforeValidator(lambda value: tidy(value) if isinstance(value, str) else value)
OwnId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, strip_whitespace=True), PRINTABLE]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, strip_whitespace=True), PRINTABLE, TIDY]
# Only the first that is wrong is reported.
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_LIST, fail_fast=True)]
Key = Annotated[str, StringConstraints(pattern=NAME)]
# Strict: `true` is no 1.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_NUMBER, le=MAX_NUMBER)]
ItemTitle = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE, strip_whitespace=True), PRINTABLE, VISIBLE, TIDY]
OldTitle = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE), PRINTABLE]
Year = Annotated[int, Field(strict=True, ge=MIN_YEAR, le=MAX_YEAR)]
LanguageCode = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LANGUAGE, strip_whitespace=True), PRINTABLE, TIDY]
Fact = Annotated[str, StringConstraints(max_length=MAX_FACT), PRINTABLE, TIDY]


class ItemFacts(TypedDict, total=False):
    """An item as plain JSON values (`Item.facts`): those that it has."""

    id: str
    kind: str
    title: str
    year: int
    genres: list[str]
    people: dict[str, list[str]]
    overview: str
    language: str
    numbers: dict[str, float]
    extra: dict[str, str | list[str]]
    identity: tuple[str, int | None]


class Item(BaseModel):
    """One recommendable thing: a film, a book, a game. Facts only; derived texts live in `text.templates`.

    `people` maps a role to names (`{"director": [...], "cast": [...]}`), `numbers` holds `rating`, `votes`, `popularity` and whatever
    else a catalogue counts, `extra` the remaining facts as strings or lists of strings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: OwnId | None = Field(None, description="the catalogue's own id; without one, the id is derived from kind, title and year")
    kind: Name = NO_KIND
    title: ItemTitle
    year: Year | None = None
    genres: Names = ()
    people: Annotated[dict[Key, Names], Field(max_length=MAX_ROLES), BeforeValidator(lambda value: small(value, MAX_ROLES))] = {}
    overview: Annotated[str, StringConstraints(max_length=MAX_OVERVIEW, strip_whitespace=True), PRINTABLE, TIDY] = ""
    language: LanguageCode | None = None
    numbers: Annotated[dict[Key, Number], Field(max_length=MAX_FACTS), BeforeValidator(lambda value: small(value, MAX_FACTS))] = {}
    extra: Annotated[dict[Key, Fact | Names], Field(max_length=MAX_FACTS), BeforeValidator(lambda value: small(value, MAX_FACTS))] = {}
    identity: tuple[OldTitle, Year | None] | None = Field(
        None,
        description="title and year that the id is derived from, where the catalogue file wrote them in another way than they stand here",
    )

    @model_validator(mode="before")
    @classmethod
    def _small(cls, value: object) -> object:
        return small(value, MAX_FIELDS)

    def uid(self, catalogue: str) -> str:
        """The item's id in the index: `uuid5(catalogue, external id)`, or of (kind, title, year) where the catalogue gives none."""
        if self.id is not None:
            return item_uid(catalogue, self.id)
        title, year = self.identity or (self.title, self.year)
        return _uuid5(catalogue, "derived", self.kind, title.casefold(), str(year))

    def facts(self) -> ItemFacts:
        """The item as plain JSON values, without what is empty."""
        facts = {key: value for key, value in self.model_dump(mode="json").items() if value not in (None, "", [], {})}
        return cast(ItemFacts, facts)

    def names(self) -> list[str]:
        return [name for names in self.people.values() for name in names]

    def apply_patch(self, patch: Mapping[str, Any]) -> "Item":
        """The item after a JSON merge patch (RFC 7396): a value replaces, null removes, an object changes the entries that it names.

        The id stays: a derived one goes on being that of the old title and year. Raises `ValueError`, which pydantic's error is too.
        """
        facts: dict[str, object] = {"identity": [self.title, self.year]} if self.id is None else {}
        facts |= self.facts()
        for name, value in patch.items():
            # No deeper: an item has no objects inside of these.
            facts[name] = _merge(facts.get(name), value) if isinstance(value, Mapping) else value
        item = Item.model_validate({name: value for name, value in facts.items() if value is not None})
        if item.id is None and item.identity == (item.title, item.year):
            item = item.model_copy(update={"identity": None})
        if item.uid("") != self.uid(""):
            raise ValueError("id: it would change with this patch, and an item keeps its id: put a new item, and delete this one")
        return item


def _merge(before: object, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of an object after a merge patch of it."""
    entries = {**(before if isinstance(before, Mapping) else {}), **patch}
    return {name: value for name, value in entries.items() if value is not None}


def item_uid(catalogue: str, external_id: str) -> str:
    """The index id of the item that a catalogue calls `external_id`."""
    return _uuid5(catalogue, "external", external_id)


def _uuid5(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))
