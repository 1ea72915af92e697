"""The HTTP API's requests and responses, as OpenAPI documents them. Unknown fields are refused."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from matinee.filters import ItemFilter
from matinee.index.imports import ImportState, Uploaded
from matinee.index.progress import BuildState
from matinee.items import MAX_TEXT_CHARS, MAX_TEXTS, PRINTABLE, TIDY, Item
from serve.api.schemas_debug import Debug
from serve.graph.health import HealthReport
from serve.graph.requests import Id, StrictModel

MAX_WRITE = 100
MAX_DELETE = 1000


class DescribeRequest(StrictModel):
    """The item to describe: one of the index, or a whole one."""

    id: Id | None = None
    item: Item | None = None

    @model_validator(mode="after")
    def _one(self) -> "DescribeRequest":
        if (self.id is None) == (self.item is None):
            raise ValueError("give exactly one of id, item")
        return self

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"item": {"kind": "film", "title": "The Lighthouse", "year": 2019, "genres": ["Drama", "Horror"]}}]
        },
    )


class PutItemsRequest(StrictModel):
    """Items to add or replace."""

    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=MAX_WRITE)]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"items": [{"id": "my-film-1", "kind": "film", "title": "My Film", "year": 2024}]}]},
    )


class DeleteManyRequest(StrictModel):
    """Items to delete together: by their ids, or the items that pass a filter."""

    ids: Annotated[
        tuple[Id, ...] | None, Field(min_length=1, max_length=MAX_DELETE, description="the catalogue's own ids, or index ids")
    ] = None
    filter: ItemFilter | None = Field(None, description="of the items that pass it, the first 1,000; not empty, which would be all items")
    dry_run: bool = Field(False, strict=True, description="delete nothing, and say which items would be deleted")

    @model_validator(mode="after")
    def _one(self) -> "DeleteManyRequest":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give exactly one of ids, filter")
        if self.filter is not None and self.filter.is_empty():
            raise ValueError('filter: an empty one would delete every item: write a condition, such as {"kind": ["film"]}')
        return self

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"ids": ["my-film-1"], "dry_run": True}, {"filter": {"year": {"lt": 1930}}, "dry_run": True}]},
    )


class RemoteImportRequest(StrictModel):
    """Where the lines of an import lie."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=4000), PRINTABLE] = Field(
        description="below a prefix of `serving.imports.sources`; lines of JSON, also .gz"
    )

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"uri": "s3://shop/exports/items.jsonl.gz"}]})


class ErrorResponse(BaseModel):
    """Every error of every route."""

    code: str
    message: str
    request_id: str
    candidates: list[dict[str, object]] | None = Field(None, description="ambiguous titles only: the items that were meant, best first")


class Ranked(BaseModel):
    """One recommended or found item."""

    id: str
    score: float
    item: Item | dict[str, object] = Field(description="the item, or the parts of it that `fields` names")
    group: str | int | bool | None = Field(None, description="the value that it is grouped by; only with `group_by`")
    because: str | None = Field(None, description="id of the liked item that the reason names")
    reason: str | None = None


class Liked(BaseModel):
    """What a liked title or id was taken for."""

    id: str | None
    title: str | None
    year: int | None


class RankedResponse(BaseModel):
    """`score_type` says what the scores are: they can't be compared across types."""

    items: list[Ranked]
    score_type: Literal["cosine", "bm25", "linear", "rrf", "dbsf", "best_score", "popularity"]
    likes: list[Liked] = []
    degraded: list[str] = Field([], description="parts that were late, full or not there, so that the answer was made without them")
    exclude_unknown: list[str] | None = Field(
        None, description="entries of `exclude` that excluded nothing, because no item has such an id; only where there are any"
    )
    facets: dict[str, list["FacetValue"]] | None = Field(None, description="values and counts of the attributes that were asked for")
    debug: Debug | None = Field(None, description="only where it was asked for")
    feedback_token: str | None = Field(None, description="what POST /v1/feedback wants; only where the server keeps events")
    request_id: str


class RankedResult(BaseModel):
    """The answer to one request of a batch, or `error` alone."""

    items: list[Ranked] | None = None
    score_type: str | None = None
    likes: list[Liked] | None = None
    degraded: list[str] | None = None
    exclude_unknown: list[str] | None = None
    facets: dict[str, list["FacetValue"]] | None = None
    debug: Debug | None = None
    feedback_token: str | None = None
    error: dict[str, object] | None = Field(None, description="code and message, as an error of /v1/recommend has them")


class RankedBatchResponse(BaseModel):
    """The results in the order of the requests."""

    results: list[RankedResult]
    failed: int
    request_id: str


class EmbedRequest(StrictModel):
    """Texts to embed: as the indexed ones are (`document`), or as queries are."""

    texts: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS), PRINTABLE, TIDY], ...],
        Field(min_length=1, max_length=MAX_TEXTS),
    ]
    kind: Literal["query", "document"] = "document"


class EmbedResponse(BaseModel):
    """Vectors of unit length in the order of the texts, and the fingerprint of the encoder that made all of them."""

    fingerprint: str
    vectors: list[list[float]]
    request_id: str


class DescribeResponse(BaseModel):
    """What the enhancer wrote, and what its checks said."""

    description: str
    source: Literal["model", "template"]
    marked: bool = Field(description="true where checks failed and the text was cut or replaced")
    violations: list[str]
    attempts: int
    item: Item
    request_id: str


class StoredItem(BaseModel):
    """An item as the index holds it."""

    id: str
    item: Item
    origin: Literal["file", "api"] | None = None
    revision: int
    enriched: bool = False
    description: str | None = None
    deleted: bool = False
    asked: int | None = Field(None, description="items of an import only: the revision when the import was asked for")


class ItemsResponse(BaseModel):
    """A page of the catalogue; `cursor` goes into the next request, null at the end."""

    items: list[StoredItem]
    cursor: str | None
    request_id: str


class WrittenItem(BaseModel):
    """The state of an item after a write."""

    id: str
    revision: int
    searchable: bool
    enriched: bool


class WriteResponse(BaseModel):
    """What was written."""

    items: list[WrittenItem]
    request_id: str


class UploadResponse(Uploaded):
    """What became of the lines that were not blank."""

    request_id: str


class ImportResponse(ImportState):
    """An import, and the request's id."""

    request_id: str


class ImportsResponse(BaseModel):
    """The imports that are remembered."""

    imports: list[ImportState]
    build: BuildState | None = Field(description="the ingest that builds a new version of the catalogue now, as it noted itself lately")
    request_id: str


class DeleteResponse(BaseModel):
    """What was deleted."""

    id: str
    deleted: bool
    request_id: str


class DeleteManyResponse(BaseModel):
    """What was deleted, or with `dry_run` would be."""

    count: int
    ids: list[str] = Field(description="index ids of the items")
    unknown: list[str] = Field(description="ids of the request that no item has")
    more: bool = Field(description="whether further items pass the filter: then send the request again")
    dry_run: bool
    request_id: str


class FacetValue(BaseModel):
    """A value and how many items have it."""

    value: str | int | bool
    count: int


class FacetsResponse(BaseModel):
    """Values and counts for filters, most frequent first: of each attribute in `facets`, and of three beside it, as ever."""

    count: int = Field(description="items that pass the filter, counted exactly")
    approximate: bool = Field(
        description="whether the counts of values may be estimates, as in an index of `index.exact_facets_below` items"
    )
    facets: dict[str, list[FacetValue]] = Field(description="attribute -> its values; those declared as facets, or those asked for")
    kind: list[FacetValue]
    genres: list[FacetValue]
    language: list[FacetValue]
    request_id: str


class ReadyResponse(BaseModel):
    """Whether traffic may come, and if not, why."""

    ready: bool
    reasons: list[str]


class InfoResponse(HealthReport):
    """Versions, models and what is degraded."""

    request_id: str
