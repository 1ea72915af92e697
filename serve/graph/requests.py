"""What a gateway is asked to rank: a recommendation or a text search, checked. The API takes these as its request bodies.

Unknown fields are refused. Does not know HTTP (`serve.api`).
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from matinee.filters import ItemFilter
from matinee.items import MAX_FIELDS, MAX_TITLE, PRINTABLE, TIDY, VISIBLE, Item, small
from matinee.patterns import pattern
from matinee.recommend.options import MAX_CANDIDATES, Direction, RankingOptions
from matinee.recommend.queries import Strategy
from matinee.settings.tree import Mode

ON_LOOP_BYTES = 32_768
"""JSON up to here is parsed and validated on the event loop: in 8 ms, if its texts are as slow as texts can be. More, in a thread."""
MAX_EXAMPLES = 50
MAX_EXCLUDE = 1000
MAX_BATCH = 1000
MAX_BATCH_ITEMS = 10_000

Id = Annotated[str, StringConstraints(min_length=1, max_length=200), PRINTABLE]
QueryText = Annotated[str, StringConstraints(min_length=1, max_length=100_000, strip_whitespace=True), PRINTABLE, TIDY]


def _short(title: str) -> str:
    if len(title) > MAX_TITLE:
        raise ValueError(f"{len(title)} characters, at most {MAX_TITLE} are allowed in a title: put a description into `text`")
    return title


Title = Annotated[
    str,
    StringConstraints(min_length=1, strip_whitespace=True),
    AfterValidator(_short),
    PRINTABLE,
    VISIBLE,
    TIDY,
    Field(json_schema_extra={"maxLength": MAX_TITLE}),
]
Diversity = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


K = Annotated[int, Field(strict=True, ge=1, le=1000, description="how many items; serving may allow fewer (search.max_k)")]


Offset = Annotated[
    int | None,
    Field(strict=True, ge=0, le=999, description="how many of the list to leave out; send it with every page, also 0, so that pages fit"),
]
AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=40)]
ItemField = Annotated[
    str,
    StringConstraints(
        pattern=pattern(
            r"^(id|kind|title|year|overview|language|genres|(people|numbers|extra)(\.[a-z][a-z0-9_]{0,39})?)$",
            "id, kind, title, year, overview, language, genres, people, numbers or extra, or a place in the last three: people.director",
        )
    ),
]


class StrictModel(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _small(cls, value: object) -> object:
        return small(value, MAX_FIELDS)


class ExampleItem(StrictModel):
    """A liked or disliked item: exactly one of the three."""

    id: Id | None = Field(None, description="the catalogue's own id, or the index id")
    title: Title | None = Field(None, description="a title; typos are forgiven, '(1984)' or '1984' at its end picks the year")
    item: Item | None = Field(None, description="a whole item that need not be in the index")

    @model_validator(mode="after")
    def _one(self) -> "ExampleItem":
        if sum(value is not None for value in (self.id, self.title, self.item)) != 1:
            raise ValueError("give exactly one of id, title, item")
        return self


def _form(example: object) -> Literal["text", "object"]:
    return "text" if isinstance(example, str) else "object"


# Told apart by their form, so that an error speaks of the one that was sent.
ExampleIn = Annotated[
    Annotated[Title, Tag("text")] | Annotated[ExampleItem, Tag("object")],
    Discriminator(_form),
    Field(description="the catalogue's own id, an index id or a title as a string, in this order; or an object"),
]
Examples = Annotated[tuple[ExampleIn, ...], Field(max_length=MAX_EXAMPLES)]


Excluded = Annotated[tuple[Id, ...], Field(max_length=MAX_EXCLUDE, description="ids of items that are not wanted; no titles")]
User = Annotated[Id | None, Field(description="whoever it is for, by your own id: kept in the event log, where there is one")]


class GroupBy(StrictModel):
    """Groups of the ranked list: `k` is the number of groups, and each has at most `limit` items; together at most 1,000.

    If the best 1,000 items have fewer, the server searches on, unless there is `sort` or `diversity`, or fusion by rrf or dbsf.
    """

    attribute: AttributeName
    limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 1


class RankingRequest(StrictModel):
    """What every route that ranks takes."""

    k: K = 10
    offset: Offset = None
    min_score: Annotated[float | None, Field(strict=True, allow_inf_nan=False, description="leave out items below this score")] = None
    sort: Annotated[
        tuple[Annotated[dict[AttributeName, Direction], Field(min_length=1, max_length=1)], ...],
        Field(max_length=3, description='order the best 1,000 by these attributes, then by score: `[{"year": "desc"}]`'),
    ] = ()
    group_by: GroupBy | None = None
    facets: Annotated[
        tuple[AttributeName, ...], Field(max_length=20, description="count the values of these attributes among the best 1,000")
    ] = ()
    fields: Annotated[
        tuple[ItemField, ...] | None, Field(max_length=64, description="parts of each item that come back; null: all of it")
    ] = None
    filter: ItemFilter = ItemFilter()
    diversity: Diversity = 0.0
    user_id: User = None
    debug: bool = Field(
        False, strict=True, description="say how the answer came about: candidates, scores, what dropped them (scope admin)"
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if (self.offset or 0) + self.k > MAX_CANDIDATES:
            raise ValueError(
                f"k and offset: {self.k} + {self.offset}, at most {MAX_CANDIDATES:,} items are ranked; page through GET /v1/items"
            )
        if self.group_by is not None and self.k * self.group_by.limit > MAX_CANDIDATES:
            raise ValueError(f"k and group_by.limit: {self.k} x {self.group_by.limit}, an answer has at most {MAX_CANDIDATES:,} items")
        if self.sort and self.diversity:
            raise ValueError("sort and diversity: a list has one order; leave one of them out")
        return self

    def options(self) -> RankingOptions:
        """The options of the ranked list."""
        group, sort = self.group_by, tuple(pair for entry in self.sort for pair in entry.items())
        by, limit = (None, 1) if group is None else (group.attribute, group.limit)
        return RankingOptions(self.offset, self.min_score, sort, by, limit, self.facets, self.fields)


class RecommendRequest(RankingRequest):
    """`likes` and `text` are positive examples of equal weight, `dislikes` negative ones. At most 20 of all may be titles.

    One positive and no negative is similarity (score: cosine). `strategy` `average` searches with 2*mean(positive) - mean(negative)
    (score: cosine to it); `best` scores each item by its nearest example (score: best_score), for tastes that have several sides. Dislikes
    alone use `best`. Nothing at all answers with the most popular items (score: popularity).
    """

    likes: Examples = ()
    dislikes: Examples = ()
    text: QueryText | None = None
    strategy: Strategy = "average"
    exclude: Excluded = ()
    explain: bool = Field(True, strict=True, description="say for each item which like it is near to, and what both share")
    enhance: bool | None = Field(
        None, strict=True, description="let the enhancer describe cold items first; by default as the index was built"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"likes": ["Inception"], "k": 3}, {"likes": ["Amélie"], "text": "a heist", "diversity": 0.3}]},
    )


class RecommendBatchRequest(StrictModel):
    """Recommendations that nobody waits for."""

    requests: Annotated[tuple[RecommendRequest, ...], Field(min_length=1, max_length=MAX_BATCH)]

    @model_validator(mode="after")
    def _check_total(self) -> "RecommendBatchRequest":
        if (total := sum(one.k for one in self.requests)) > MAX_BATCH_ITEMS:
            raise ValueError(
                f"they want {total:,} items together, at most {MAX_BATCH_ITEMS:,} are allowed: lower k, or send several batches"
            )
        return self

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"requests": [{"likes": ["Inception"], "k": 3, "user_id": "u-1"}, {"k": 3}]}]}
    )


class SimilarRequest(RankingRequest, ExampleItem):
    """One item, for those near to it: exactly one of id, title, item."""

    exclude: Excluded = ()

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"id": "/works/OL45804W", "k": 3}, {"title": "Metropolis", "filter": {"year": {"lt": 1930}}}]},
    )


class SimilarQuery(BaseModel):
    """The query parameters of a request for items near to the one in its path."""

    k: Annotated[int, Field(ge=1, le=1000)] = 10
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    user_id: User = None


class SearchRequest(RankingRequest):
    """A text search: `dense` by meaning, `sparse` by words (BM25), `hybrid` by both."""

    text: QueryText
    mode: Mode | None = None
    exact: bool = Field(False, strict=True, description="scan everything instead of the graph index (scope admin)")
    expand: bool = Field(False, strict=True, description="let the enhancer write a hypothetical description first, and search with it too")

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a heist inside dreams", "k": 3, "filter": {"year": {"gte": 2000}}}]}
    )
