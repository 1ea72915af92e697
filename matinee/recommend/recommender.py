"""Requests -> ranked, explained answers, many at a time: the one place where examples, searches, diversity and reasons meet.

Works on an open `Index` with vectors that are already made. Does not embed, does not know HTTP.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from matinee.errors import MatineeError, NotFoundError
from matinee.index.item_vector import item_vector
from matinee.index.protocols import Index
from matinee.index.types import (
    BM25,
    ITEM,
    TEXT,
    DenseQuery,
    Hit,
    HybridQuery,
    PopularQuery,
    RecommendationQuery,
    ScoreType,
    Search,
    SparseQuery,
)
from matinee.items import ItemFilter
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend import titles
from matinee.recommend.explain import examine
from matinee.recommend.ranking import diversify, nearest_like, pool_size, shared_facts
from matinee.settings.tree import FactWeights, Mode, SearchSettings
from matinee.text.templates import reason_sentence
from matinee.vectors import Vector


@dataclass(frozen=True, slots=True)
class Example:
    """A liked or disliked item: one of the index (by `id` or `title`), or a cold one (`facts` with its `vector`)."""

    id: str | None = None
    title: str | None = None
    facts: Mapping[str, Any] | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class RecommendCall:
    """What one `recommend` asks.

    Liked examples and the text are positive, each with the same weight. Dislikes are negative (see `RecommendationQuery` for the
    strategies). One positive and no negative is plain similarity. Dislikes alone use the `best` strategy; nothing at all gets the most
    popular items. No example is ever recommended. The reason names the liked item that is nearest to the recommended one.
    """

    likes: tuple[Example, ...] = ()
    dislikes: tuple[Example, ...] = ()
    text: Vector | None = None
    strategy: Literal["average", "best"] = "average"
    k: int = 10
    filter: ItemFilter = field(default_factory=ItemFilter)
    exclude: frozenset[str] = frozenset()
    diversity: float = 0.0
    explain: bool = True
    debug: bool = False


@dataclass(frozen=True, slots=True)
class SearchCall:
    """What one text search asks; `vector` is None in sparse mode."""

    text: str
    vector: Vector | None
    mode: Mode
    k: int = 10
    filter: ItemFilter = field(default_factory=ItemFilter)
    diversity: float = 0.0
    exact: bool = False
    debug: bool = False


Call = RecommendCall | SearchCall


@dataclass(frozen=True, slots=True)
class RankedItems:
    """`items` is the JSON of the ranked list, ready to be put into a response; `likes` says what the liked titles and ids meant.

    `debug` says how the list came about (`matinee.recommend.explain`), where the call asked for it.
    """

    items: bytes
    count: int
    score_type: ScoreType
    likes: tuple[dict[str, Any], ...] = ()
    debug: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """An example after look-up."""

    id: str | None
    facts: Mapping[str, Any]
    vector: Vector


@dataclass(frozen=True, slots=True)
class _Plan:
    call: Call
    search: Search
    score_type: ScoreType
    likes: tuple[_Known, ...] = ()


Offload = Callable[[Callable[[], list[RankedItems]]], Awaitable[list[RankedItems]]]


class Recommender:
    """Answers calls from one index version. `offload` runs a CPU-bound function where it blocks no event loop."""

    def __init__(
        self,
        index: Index,
        settings: SearchSettings,
        *,
        language: str | None = "english",
        offload: Offload | None = None,
    ) -> None:
        self._bm25 = Bm25Encoder(language)
        self._index = index
        self._settings = settings
        self._offload = offload or _inline

    async def answer(self, calls: Sequence[Call]) -> list[RankedItems | MatineeError]:
        """One answer or one explained error for each call; the engine is asked once for all of them."""
        examples = await self._look_up([call for call in calls if isinstance(call, RecommendCall)])
        plans: list[_Plan | MatineeError] = []
        for call in calls:
            known = examples.get(id(call))
            plans.append(known if isinstance(known, MatineeError) else self._plan(call, known))
        ready = [plan for plan in plans if isinstance(plan, _Plan)]
        hits = await self._index.search([plan.search for plan in ready]) if ready else []
        done = await self._offload(lambda: [_finish(plan, found) for plan, found in zip(ready, hits, strict=True)])
        answers = iter([await self._examined(*case) if case[0].call.debug else case[2] for case in zip(ready, hits, done, strict=True)])
        return [plan if isinstance(plan, MatineeError) else next(answers) for plan in plans]

    async def _examined(self, plan: _Plan, pool: Sequence[Hit], answer: RankedItems) -> RankedItems | MatineeError:
        """The answer with its case; an index that fails now fails this call alone, not those that came with it."""
        start = time.perf_counter()
        answered = [card["id"] for card in orjson.loads(answer.items)]
        chosen = plan.call.exclude if isinstance(plan.call, RecommendCall) else frozenset()
        try:
            case = await examine(self._index, plan.search, pool, answered, plan.search.exclude - chosen)
        except MatineeError as error:
            return error
        return replace(answer, debug=case | {"forensics_ms": (time.perf_counter() - start) * 1000})

    async def _look_up(self, calls: Sequence[RecommendCall]) -> dict[int, "tuple[tuple[_Known, ...], tuple[_Known, ...]] | MatineeError"]:
        """The examples of each call (by the call's identity), fetched in one read."""
        by_title = await self._resolve_titles(calls)
        wanted = {e.id for call in calls for e in (*call.likes, *call.dislikes) if e.id} | {
            found for found in by_title.values() if isinstance(found, str)
        }
        ids = sorted(wanted)
        stored = dict(zip(ids, await self._index.retrieve(ids, vectors=True), strict=True)) if ids else {}
        looked_up: dict[int, tuple[tuple[_Known, ...], tuple[_Known, ...]] | MatineeError] = {}
        for call in calls:
            try:
                likes, dislikes = ([_known(e, by_title, stored) for e in group] for group in (call.likes, call.dislikes))
                looked_up[id(call)] = tuple(likes), tuple(dislikes)
            except MatineeError as error:
                looked_up[id(call)] = error
        return looked_up

    async def _resolve_titles(self, calls: Sequence[RecommendCall]) -> dict[str, str | MatineeError]:
        wanted = [[e.title for e in (*call.likes, *call.dislikes) if e.title and not e.id] for call in calls]
        # The titles of all calls share one time budget. Those of a call with many long titles come last, and are late alone.
        wanted.sort(key=lambda group: sum(map(len, group)))
        found = await titles.resolve_all(self._index, [title for group in wanted for title in group])
        return {title: one if isinstance(one, MatineeError) else one.id for title, one in found.items()}

    def _plan(self, call: Call, examples: tuple[tuple[_Known, ...], tuple[_Known, ...]] | None) -> _Plan:
        if isinstance(call, SearchCall):
            text_query, score_type = self._text_query(call)
            return _Plan(call, self._search(call, text_query, frozenset(), call.exact), score_type)
        likes, dislikes = examples or ((), ())
        query, score_type = _taste(call, likes, dislikes, self._index.manifest.facts)
        exclude = call.exclude | {known.id for known in (*likes, *dislikes) if known.id is not None}
        return _Plan(call, self._search(call, query, exclude, exact=False), score_type, likes)

    def _search(
        self,
        call: Call,
        query: DenseQuery | SparseQuery | HybridQuery | RecommendationQuery | PopularQuery,
        exclude: frozenset[str],
        exact: bool,
    ) -> Search:
        explains = isinstance(call, RecommendCall) and call.explain and len(call.likes) > 1
        return Search(
            query,
            pool_size(call.k, call.diversity),
            filter=call.filter,
            exclude=exclude,
            exact=exact,
            with_vectors=call.diversity > 0 or explains,
        )

    def _text_query(self, call: SearchCall) -> tuple[DenseQuery | SparseQuery | HybridQuery, ScoreType]:
        if call.mode == "sparse" or call.vector is None:
            return SparseQuery(self._bm25.query(call.text), BM25), "bm25"
        if call.mode == "dense":
            return DenseQuery(call.vector), "cosine"
        terms = self._bm25.query(call.text)
        if not terms.indices:
            # Nothing but stop words or signs: the sparse side has no say, and fusing with an empty list would only hide the cosine.
            return DenseQuery(call.vector), "cosine"
        s = self._settings
        prefetch = max(s.prefetch, pool_size(call.k, call.diversity))
        return HybridQuery(call.vector, terms, s.fusion, s.rrf_k, s.weights, prefetch), s.fusion


async def _inline(work: Callable[[], "list[RankedItems]"]) -> "list[RankedItems]":
    return work()


def _known(example: Example, by_title: Mapping[str, str | MatineeError], stored: Mapping[str, Hit | None]) -> _Known:
    if example.vector is not None:
        return _Known(example.id, example.facts or {}, example.vector)
    id = example.id or by_title.get(example.title or "")
    if id is None:
        raise NotFoundError("an example has neither an id nor a title: give one of them, or a whole item")
    if isinstance(id, MatineeError):
        raise id
    hit = stored[id]
    if hit is None or hit.payload.get("deleted"):
        raise NotFoundError(f"no item has the id {id}: look it up with GET /v1/items?q=TITLE")
    if hit.vector is None:
        raise NotFoundError(f"item {id} is not embedded yet: ask again in a moment")
    return _Known(id, hit.payload["item"], hit.vector)


def _taste(
    call: RecommendCall, likes: Sequence[_Known], dislikes: Sequence[_Known], facts: FactWeights | None
) -> tuple[DenseQuery | RecommendationQuery | PopularQuery, ScoreType]:
    using = TEXT
    if facts is not None and call.text is None:
        # Items against items: their facts count too. A text has none, so with one all are compared as texts.
        using = ITEM
        likes, dislikes = (
            [replace(known, vector=item_vector(known.vector, known.facts, facts)) for known in group] for group in (likes, dislikes)
        )
    positive = [known.vector for known in likes] + ([] if call.text is None else [call.text])
    negative = [known.vector for known in dislikes]
    if not positive and not negative:
        return PopularQuery(), "popularity"
    if len(positive) == 1 and not negative:
        return DenseQuery(positive[0], using), "cosine"
    if call.strategy == "best" or not positive:
        return RecommendationQuery(positive, negative, "best", using), "best_score"
    return RecommendationQuery(positive, negative, "average", using), "cosine"


def _finish(plan: _Plan, hits: Sequence[Hit]) -> RankedItems:
    chosen = diversify(hits, plan.call.k, plan.call.diversity)
    explain = isinstance(plan.call, RecommendCall) and plan.call.explain
    vectors = [known.vector for known in plan.likes]
    cards = []
    for hit in chosen:
        facts = hit.payload["item"]
        card: dict[str, Any] = {"id": hit.id, "score": round(hit.score, 6), "item": facts}
        if explain and plan.likes:
            like = plan.likes[nearest_like(hit.vector, vectors)]
            card["because"] = like.id
            card["reason"] = reason_sentence(like.facts["title"], facts["title"], shared_facts(like.facts, facts))
        cards.append(card)
    likes = tuple({"id": known.id, "title": known.facts.get("title"), "year": known.facts.get("year")} for known in plan.likes)
    return RankedItems(orjson.dumps(cards), len(cards), plan.score_type, likes)
