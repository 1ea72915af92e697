"""A ranked list and a description as the API answers them, and this machine's index without a server: plain JSON objects."""

from typing import NotRequired, TypedDict

from matinee.items import ItemFacts


class ResolvedLike(TypedDict):
    """What a liked title or id was taken for."""

    id: str | None
    title: str | None
    year: int | None


class RankedCard(TypedDict):
    """One recommended or found item."""

    id: str
    score: float
    item: ItemFacts
    because: NotRequired[str | None]
    reason: NotRequired[str]


class RankedAnswer(TypedDict):
    """A ranked list, best first. `degraded`: the parts that were not available."""

    items: list[RankedCard]
    score_type: str
    likes: list[ResolvedLike]
    degraded: list[str]


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
