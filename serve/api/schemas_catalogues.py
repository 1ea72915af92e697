"""The requests and the answers of `/v1/catalogues`, as OpenAPI documents them."""

from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from matinee.errors import SettingsError
from matinee.filters.attributes import MAX_ATTRIBUTES, RESERVED, Attribute
from matinee.index import registry
from matinee.index.registry import CatalogueChanges, CatalogueName, CatalogueReport, SearchChanges
from matinee.items import Name
from matinee.patterns import NAME
from matinee.settings.index import Recipe
from matinee.settings.tree import SearchSettings
from serve.graph.requests import StrictModel

Declarations = TypeVar("Declarations", bound=Mapping[str, object])
DeclaredName = Annotated[str, StringConstraints(pattern=NAME)]


def _check_names(attributes: Declarations) -> Declarations:
    if wrong := RESERVED.intersection(attributes):
        raise ValueError(f"{', '.join(sorted(wrong))} can't be the name of an attribute: it has a meaning in filters")
    return attributes


def _check_search(search: SearchChanges) -> SearchChanges:
    try:
        search.apply_to(SearchSettings())
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return search


NewAttributes = Annotated[dict[DeclaredName, Attribute], Field(max_length=MAX_ATTRIBUTES), AfterValidator(_check_names)]
ChangedAttributes = Annotated[dict[DeclaredName, Attribute | None], Field(max_length=2 * MAX_ATTRIBUTES), AfterValidator(_check_names)]
RankingChanges = Annotated[SearchChanges, AfterValidator(_check_search)]


class CreateCatalogueRequest(StrictModel):
    """A new catalogue. It has no items yet: write them, import them, or ingest a file under its name."""

    name: CatalogueName = Field(description="lower-case letters, digits, - and _, beginning with a letter; up to 63 characters")
    title: Name | None = Field(None, description="what people see instead of the name")
    kind: Name | None = Field(None, description="what its items are, such as film, where an ingest does not say")
    recipe: Recipe | None = Field(None, description="text that is embedded; null is the server's index.recipe")
    attributes: NewAttributes | None = Field(
        None, description="what its items can be filtered, sorted and counted by; null: kind, genres, language, year, rating and votes"
    )
    search: RankingChanges = Field(SearchChanges(), description="settings of ranking that differ from the server's")

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in registry.RESERVED:
            raise ValueError(f"{name!r} means something else here: choose another name")
        return name

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "books", "kind": "book", "attributes": {"author": {"type": "keyword", "source": "people.author", "many": True}}}
            ]
        },
    )


class ChangeCatalogueRequest(StrictModel):
    """What to change of a catalogue; the rest stays. null gives a field back the value that it has in a new catalogue."""

    title: Name | None = Field(None, description="what people see instead of the name")
    kind: Name | None = Field(None, description="what its items are, such as film, where an ingest does not say")
    recipe: Recipe | None = Field(None, description="text that the next ingest embeds; null is the server's index.recipe")
    attributes: ChangedAttributes | None = Field(
        None, description="attributes to add, to declare anew, or with null to remove; the others stay. null: the next ingest proposes them"
    )
    search: RankingChanges | None = Field(None, description="settings of ranking to change; null gives one back its value at the server")

    def changes(self) -> CatalogueChanges:
        return CatalogueChanges.model_construct(self.model_fields_set, **{name: getattr(self, name) for name in type(self).model_fields})

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"attributes": {"pages": {"type": "integer", "source": "numbers.pages"}}, "search": {"mode": "hybrid"}}]
        },
    )


class CreateIndexRequest(StrictModel):
    """A first, empty index, for clients to write to."""

    attributes: NewAttributes | None = Field(
        None, description="what its items can be filtered, sorted and counted by, where it was created without attributes"
    )


class CatalogueResponse(CatalogueReport):
    """A catalogue, and the request's id."""

    request_id: str


class CataloguesResponse(BaseModel):
    """The catalogues that the key may see, the default one first."""

    catalogues: list[CatalogueReport]
    request_id: str


class DeleteCatalogueResponse(BaseModel):
    """What was deleted."""

    name: str
    deleted: bool
    request_id: str
