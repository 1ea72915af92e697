"""The requests and the answers of `/v1/catalogues`, as OpenAPI documents them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from matinee.attributes import MAX_ATTRIBUTES, RESERVED, Attribute
from matinee.errors import SettingsError
from matinee.index import registry
from matinee.index.registry import CatalogueName, SearchChanges
from matinee.items import Name
from matinee.patterns import NAME
from matinee.settings.index import Recipe
from matinee.settings.tree import SearchSettings
from serve.graph.requests import StrictModel

DeclaredName = Annotated[str, StringConstraints(pattern=NAME)]


class CreateCatalogueRequest(StrictModel):
    """A new catalogue. It has no items yet: write them, import them, or ingest a file under its name."""

    name: CatalogueName = Field(description="lower-case letters, digits, - and _, beginning with a letter; up to 63 characters")
    kind: Name | None = Field(None, description="what its items are, such as film, where an ingest does not say")
    recipe: Recipe | None = Field(None, description="text that is embedded; null is the server's index.recipe")
    attributes: Annotated[dict[DeclaredName, Attribute], Field(max_length=MAX_ATTRIBUTES)] | None = Field(
        None, description="what its items can be filtered, sorted and counted by; null: kind, genres, language, year, rating and votes"
    )
    search: SearchChanges = Field(SearchChanges(), description="settings of ranking that differ from the server's")

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in registry.RESERVED:
            raise ValueError(f"{name!r} means something else here: choose another name")
        return name

    @field_validator("attributes")
    @classmethod
    def _named(cls, attributes: dict[str, Attribute] | None) -> dict[str, Attribute] | None:
        if wrong := RESERVED.intersection(attributes or ()):
            raise ValueError(f"{', '.join(sorted(wrong))} can't be the name of an attribute: it has a meaning in filters")
        return attributes

    @field_validator("search")
    @classmethod
    def _usable(cls, search: SearchChanges) -> SearchChanges:
        try:
            search.applied(SearchSettings())
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return search

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "books", "kind": "book", "attributes": {"author": {"type": "keyword", "source": "people.author", "many": True}}}
            ]
        },
    )


class CatalogueFields(BaseModel):
    """A catalogue."""

    name: str
    default: bool = Field(description="whether the routes without a catalogue's name are for this one")
    state: Literal["ready", "empty", "deleting", "unavailable"] = Field(
        description="empty: no index was built yet; unavailable: its index can't be read now"
    )
    open: bool = Field(description="whether its index is open; it is opened by the next request")
    version: str | None = Field(description="the index version that answers")
    items: int | None = Field(description="items in it; of one that is not open, when it was last closed or built")
    attributes: int = Field(description="how many attributes its items can be filtered, sorted and counted by")
    kind: str | None
    recipe: str | None
    created: str | None = Field(description="null for the default one")
    search: dict[str, object] = Field(description="settings of ranking that differ from the server's")


class CatalogueResponse(CatalogueFields):
    """A catalogue, and the request's id."""

    request_id: str


class CataloguesResponse(BaseModel):
    """The catalogues that the key may see, the default one first."""

    catalogues: list[CatalogueFields]
    request_id: str


class DeleteCatalogueResponse(BaseModel):
    """What was deleted."""

    name: str
    deleted: bool
    request_id: str
