"""What is asked of the recommender, how much work that is, and what it answers. Plain data; does not rank."""

from dataclasses import dataclass, field
from typing import Literal

from matinee.filters import ItemFilter
from matinee.index import cost
from matinee.index.types import FacetCount, ScoreType
from matinee.items import ItemFacts
from matinee.recommend.options import MAX_CANDIDATES, RankingOptions
from matinee.recommend.ranking import pool_size
from matinee.recommend.results import Explanation, ResolvedLike
from matinee.settings.tree import Mode
from matinee.vectors import Vector

Strategy = Literal["average", "best"]

_LIGHT_K = 20


@dataclass(frozen=True, slots=True)
class Example:
    """A liked or disliked item: one of the index, or a cold one (`facts` with its `vector`).

    `id` is the catalogue's own or the index'. A text that may be an id or a title is both: the title counts where no item has the id.
    """

    id: str | None = None
    title: str | None = None
    facts: ItemFacts | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """What one recommendation starts from.

    Liked examples and the text are positive, each with the same weight. Dislikes are negative (see `RecommendationQuery` for the
    strategies). One positive and no negative is plain similarity. Dislikes alone use the `best` strategy; nothing at all gets the most
    popular items. No example is ever recommended. The reason names the liked item that is nearest to the recommended one.
    """

    likes: tuple[Example, ...] = ()
    dislikes: tuple[Example, ...] = ()
    text: Vector | None = None
    strategy: Strategy = "average"
    k: int = 10
    filter: ItemFilter = field(default_factory=ItemFilter)
    exclude: frozenset[str] = frozenset()
    diversity: float = 0.0
    explain: bool = True
    debug: bool = False
    options: RankingOptions = RankingOptions()  # noqa: RUF009  it is frozen


@dataclass(frozen=True, slots=True)
class TextQuery:
    """One search by text; `vector` is None in sparse mode."""

    text: str
    vector: Vector | None
    mode: Mode
    k: int = 10
    filter: ItemFilter = field(default_factory=ItemFilter)
    diversity: float = 0.0
    exact: bool = False
    debug: bool = False
    options: RankingOptions = RankingOptions()  # noqa: RUF009  it is frozen


Query = ExampleQuery | TextQuery


@dataclass(frozen=True, slots=True)
class RankedItems:
    """`items` is the JSON of the ranked list, ready to be put into a response; `likes` says what the liked titles and ids meant.

    `exclude_unknown` are entries of `exclude` that no item has as its id.
    `debug` says how the list came about (`matinee.recommend.explain`), where the query has `debug`; `facets` are its counts.
    """

    items: bytes
    count: int
    score_type: ScoreType
    likes: tuple[ResolvedLike, ...] = ()
    debug: Explanation | None = None
    exclude_unknown: tuple[str, ...] = ()
    facets: dict[str, list[FacetCount]] | None = None


def candidates(query: Query) -> int:
    """How many items are searched for. Every page is a part of the same list, which does not depend on its place."""
    return MAX_CANDIDATES if query.options.needs_candidates else pool_size(query.k, query.diversity)


def scans(query: Query) -> int:
    """How much work it gives the engine (`matinee.index.cost`): its search, and reading its examples."""
    examples = len(query.likes) + len(query.dislikes) if isinstance(query, ExampleQuery) else 0
    by_each = isinstance(query, ExampleQuery) and (query.strategy == "best" or not (query.likes or query.text is not None))
    return cost.scans(examples if by_each and examples else 1, query.filter, candidates(query)) + cost.reading(examples)


def is_light(query: Query) -> bool:
    """Whether it asks for nothing but the index, and for little of it, and ranking takes less than a hop to another thread."""
    if scans(query) > cost.LIGHT:
        return False
    titles = isinstance(query, ExampleQuery) and any(example.title for example in (*query.likes, *query.dislikes))
    return query.k <= _LIGHT_K and query.diversity == 0 and not query.debug and not titles and not query.options.needs_candidates
