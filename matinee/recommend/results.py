"""A ranked list and a description as the API answers them, and this machine's index without a server: plain JSON objects."""

from typing import NotRequired, TypedDict

from matinee.items import ItemFacts


class ResolvedLike(TypedDict):
    """What a liked title or id was taken for."""

    id: str | None
    title: str | None
    year: int | None


class RankedCard(TypedDict):
    """One recommended or found item. `group`: the value that it is grouped by, where that was asked for."""

    id: str
    score: float
    item: ItemFacts
    group: NotRequired[str | int | bool | None]
    because: NotRequired[str | None]
    reason: NotRequired[str]


class ExplainedCandidate(TypedDict):
    """An item that the search considered: its place in the answer (`rank`), or what dropped it."""

    id: str
    title: str | None
    scores: dict[str, float]
    score: NotRequired[float]
    rank: NotRequired[int]
    dropped: NotRequired[list[str]]


class IndexVersion(TypedDict):
    """The index version that answered."""

    version: str
    fingerprint: str
    recipe: str
    models: dict[str, str]


class Explanation(TypedDict):
    """How an answer came about. `explain_ms`: how long it took to find out."""

    stages: list[str]
    items: int
    items_passing_filter: int
    candidates_found: int
    dropped: dict[str, int]
    candidates: list[ExplainedCandidate]
    index: IndexVersion
    explain_ms: NotRequired[float]


class FacetEntry(TypedDict):
    """A value, and how many items have it."""

    value: str | int | bool
    count: int


class RankedAnswer(TypedDict):
    """A ranked list, best first. `degraded`: the parts that were not available; `debug`: how it came about, where that was asked for.

    `facets`: the counts that were asked for; `exclude_unknown`: entries of `exclude` that no item has as its id.
    """

    items: list[RankedCard]
    score_type: str
    likes: list[ResolvedLike]
    degraded: list[str]
    facets: NotRequired[dict[str, list[FacetEntry]]]
    exclude_unknown: NotRequired[list[str]]
    feedback_token: NotRequired[str]
    debug: NotRequired[Explanation]


class DescribedItem(TypedDict):
    """What the enhancer wrote of `item`, and what its checks said."""

    description: str
    source: str
    marked: bool
    violations: list[str]
    item: ItemFacts


class VersionEntry(TypedDict):
    """A version's manifest (`matinee.index.types.Manifest`), of which these parts are shown."""

    version: str
    count: int
    recipe: str
    created: str
    source: str


class VersionList(TypedDict):
    """The versions of a catalogue, newest first."""

    current: str | None
    previous: str | None
    versions: list[VersionEntry]
