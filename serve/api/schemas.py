"""The HTTP API's requests and responses, as OpenAPI documents them. Unknown fields are refused."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from matinee.client.models import MAX_TEXT_CHARS, MAX_TEXTS
from matinee.items import MAX_TITLE, PRINTABLE, Item, ItemFilter
from matinee.settings.tree import Mode
from serve.api.schemas_debug import Debug

MAX_EXAMPLES = 50
MAX_EXCLUDE = 1000
MAX_WRITE = 100

Id = Annotated[str, StringConstraints(min_length=1, max_length=200), PRINTABLE]
Query = Annotated[str, StringConstraints(min_length=1, max_length=100_000, strip_whitespace=True), PRINTABLE]


def _short(title: str) -> str:
    if len(title) > MAX_TITLE:
        raise ValueError(f"{len(title)} characters, at most {MAX_TITLE} are allowed in a title: put a description into `text`")
    return title


Title = Annotated[
    str,
    StringConstraints(min_length=1, strip_whitespace=True),
    AfterValidator(_short),
    PRINTABLE,
    Field(json_schema_extra={"maxLength": MAX_TITLE}),
]
Diversity = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExampleItem(_Request):
    """A liked or disliked item: exactly one of the three."""

    id: Id | None = Field(None, description="the index id, or the catalogue's own id")
    title: Title | None = Field(None, description="a title; typos are forgiven, '(1984)' or '1984' at its end picks the year")
    item: Item | None = Field(None, description="a whole item that need not be in the index")

    @model_validator(mode="after")
    def _one(self) -> "ExampleItem":
        if sum(value is not None for value in (self.id, self.title, self.item)) != 1:
            raise ValueError("give exactly one of id, title, item")
        return self


def _form(example: Any) -> Literal["text", "object"]:
    return "text" if isinstance(example, str) else "object"


# Told apart by their form, so that an error speaks of the one that was sent.
ExampleIn = Annotated[
    Annotated[Title, Tag("text")] | Annotated[ExampleItem, Tag("object")],
    Discriminator(_form),
    Field(description="an index id or a title as a string, or an object"),
]
Examples = Annotated[tuple[ExampleIn, ...], Field(max_length=MAX_EXAMPLES)]


User = Annotated[Id | None, Field(description="whoever it is for, by your own id: kept in the event log, where there is one")]


class _Ranked(_Request):
    k: Annotated[int, Field(strict=True, ge=1, le=1000, description="how many items; serving may allow fewer (search.max_k)")] = 10
    filter: ItemFilter = ItemFilter()
    diversity: Diversity = 0.0
    user_id: User = None
    debug: bool = Field(
        False, strict=True, description="say how the answer came about: candidates, scores, what dropped them (scope admin)"
    )


class RecommendRequest(_Ranked):
    """`likes` and `text` are positive examples of equal weight, `dislikes` negative ones. At most 20 of all may be titles.

    One positive and no negative is similarity (score: cosine). `strategy` `average` searches with 2*mean(positive) - mean(negative)
    (score: cosine to it); `best` scores each item by its nearest example (score: best_score), for tastes that have several sides. Dislikes
    alone use `best`. Nothing at all answers with the most popular items (score: popularity).
    """

    likes: Examples = ()
    dislikes: Examples = ()
    text: Query | None = None
    strategy: Literal["average", "best"] = "average"
    exclude: Annotated[tuple[Id, ...], Field(max_length=MAX_EXCLUDE)] = ()
    explain: bool = Field(True, strict=True, description="say for each item which like it is near to, and what both share")
    enhance: bool | None = Field(
        None, strict=True, description="let the enhancer describe cold items first; by default as the index was built"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"likes": ["Inception"], "k": 3}, {"likes": ["Amélie"], "text": "a heist", "diversity": 0.3}]},
    )


class SearchRequest(_Ranked):
    """A text search: `dense` by meaning, `sparse` by words (BM25), `hybrid` by both."""

    text: Query
    mode: Mode | None = None
    exact: bool = Field(False, strict=True, description="scan everything instead of the graph index (scope admin)")
    expand: bool = Field(False, strict=True, description="let the enhancer write a hypothetical description first, and search with it too")

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a heist inside dreams", "k": 3, "filter": {"year": {"gte": 2000}}}]}
    )


class DescribeRequest(_Request):
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


class PutItemsRequest(_Request):
    """Items to add or replace."""

    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=MAX_WRITE)]

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"items": [{"id": "my-film-1", "kind": "film", "title": "My Film", "year": 2024}]}]},
    )


class ErrorResponse(BaseModel):
    """Every error of every route."""

    code: str
    message: str
    request_id: str
    candidates: list[dict[str, Any]] | None = Field(None, description="ambiguous titles only: the items that were meant, best first")


class Ranked(BaseModel):
    """One recommended or found item."""

    id: str
    score: float
    item: Item
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
    debug: Debug | None = Field(None, description="only where it was asked for")
    request_id: str


class EmbedRequest(_Request):
    """Texts to embed: as the indexed ones are (`document`), or as queries are."""

    texts: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS), PRINTABLE], ...],
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


class DeleteResponse(BaseModel):
    """What was deleted."""

    id: str
    deleted: bool
    request_id: str


class FacetValue(BaseModel):
    """A value and how many items have it."""

    value: str
    count: int


class FacetsResponse(BaseModel):
    """Values and counts for filters, most frequent first."""

    count: int
    kind: list[FacetValue]
    genres: list[FacetValue]
    language: list[FacetValue]
    request_id: str


class ReadyResponse(BaseModel):
    """Whether traffic may come, and if not, why."""

    ready: bool
    reasons: list[str]


class InfoResponse(BaseModel):
    """Versions, models and what is degraded."""

    version: str
    catalogue: str
    index: dict[str, Any] | None = Field(description="the version that answers; null where there is none yet, or it is out of reach")
    index_trouble: str | None = Field(description="why the index, or its current version, is out of reach; null while all is well")
    embedder: dict[str, Any]
    enhancer: dict[str, Any] | None
    search: dict[str, Any]
    limits: dict[str, Any]
    writable: bool
    degraded: list[str]
    request_id: str
