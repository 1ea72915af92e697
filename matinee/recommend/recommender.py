"""Requests -> ranked, explained answers, many at a time: the one place where examples, searches, diversity and reasons meet.

Works on an open `Index` with vectors that are already made. Does not embed, does not know HTTP.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from matinee.errors import (
    FilterError,
    IndexAbsentError,
    IndexUnavailableError,
    IndexUnreachableError,
    MatineeError,
    NotFoundError,
    UnknownAttributeError,
)
from matinee.index.ids import index_ids, locate
from matinee.index.item_vector import item_vector
from matinee.index.protocols import Index
from matinee.index.types import (
    BM25,
    ITEM,
    TEXT,
    DenseQuery,
    EngineQuery,
    Hit,
    HybridQuery,
    PopularQuery,
    RecommendationQuery,
    ScoreType,
    Search,
    SparseQuery,
    StoredQuery,
)
from matinee.items import ItemFacts
from matinee.languages import ENGLISH
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend import titles
from matinee.recommend.explain import explain
from matinee.recommend.groups import GroupSearch, group_hits, group_of, run_rounds
from matinee.recommend.options import SCORE_DIGITS, count_facets, select_fields, sort_hits
from matinee.recommend.queries import Example, ExampleQuery, Query, RankedItems, TextQuery, candidates, is_light
from matinee.recommend.ranking import LikedFacts, diversify, nearest_like
from matinee.recommend.results import ResolvedLike
from matinee.recommend.titles import Resolution
from matinee.settings.index import FactWeights
from matinee.settings.tree import SearchSettings
from matinee.text.templates import reason_sentence
from matinee.vectors import Vector


@dataclass(frozen=True, slots=True)
class _ResolvedExample:
    """An example that was looked up. The vector of a `StoredQuery`'s stays in the index."""

    id: str | None
    facts: ItemFacts
    vector: Vector | None = None


@dataclass(slots=True)
class _Pending:
    """One query on its way to its answer. An error ends it, and only it."""

    query: Query
    likes: list[_ResolvedExample] = field(default_factory=list)
    dislikes: list[_ResolvedExample] = field(default_factory=list)
    exclude: frozenset[str] = frozenset()
    exclude_unknown: tuple[str, ...] = ()
    search: Search = field(init=False)
    score_type: ScoreType = field(init=False)
    hits: list[Hit] = field(default_factory=list)
    further: list[Hit] = field(default_factory=list)
    found: bool = False
    answer: RankedItems | MatineeError | None = None

    @property
    def failed(self) -> bool:
        return isinstance(self.answer, MatineeError)


# The words in which a server, or the client's own mode, says that there is no such point, or no such vector of it.
_REFUSED = (IndexAbsentError, IndexUnavailableError, ValueError)

Offload = Callable[[Callable[[], list[RankedItems]]], Awaitable[list[RankedItems]]]


class Recommender:
    """Answers queries from one index version.

    `language` is that of a text's words (`embedder.language`), `reasons_in` that of the reasons (`language`). `offload` runs a CPU-bound
    function where it blocks no event loop.
    """

    def __init__(
        self,
        index: Index,
        settings: SearchSettings,
        *,
        language: str | None = "english",
        reasons_in: str = ENGLISH,
        offload: Offload | None = None,
    ) -> None:
        self._bm25 = Bm25Encoder(language)
        self._reasons_in = reasons_in
        self._index = index
        self._settings = settings
        self._offload = offload or _inline
        # Of the last UUID that an item was found by. Most catalogues' own ids are none; where they are, clients send these or those.
        self._uuid_is_own = False

    async def answer(self, queries: Sequence[Query]) -> list[RankedItems | MatineeError]:
        """One answer or one explained error for each query; the engine is asked once for all of them."""
        pending = [_Pending(query) for query in queries]
        if all(is_light(query) for query in queries):
            await self._index.together(lambda: self._find_and_rank(pending), brief=len(pending) == 1)
        else:
            await self._find(pending)
            valid = [one for one in pending if not one.failed]
            await self._complete_groups([one for one in valid if one.query.options.group_by is not None and not one.query.diversity])
            answers = await self._offload(lambda: [self._rank(one) for one in valid])
            for one, answer in zip(valid, answers, strict=True):
                one.answer = await self._with_explanation(one, answer) if one.query.debug else answer
        return [one.answer for one in pending if one.answer is not None]

    async def _find(self, pending: Sequence[_Pending]) -> None:
        """Set each query's hits, or the error that ends it."""
        if self._index.searches_by_id:
            await self._find_by_id([one for one in pending if _is_by_id(one.query)])
        others = [one for one in pending if not one.found]
        await self._look_up(others)
        for one in others:
            one.answer = one.answer or self._validate(one.query)
        valid = [one for one in others if not one.failed]
        for one in valid:
            one.search, one.score_type = self._plan(one)
        if valid:
            all_hits = await self._index.search([one.search for one in valid])
            for one, hits in zip(valid, all_hits, strict=True):
                one.hits = hits if one.search.with_payload else await self._page(one.query, hits)

    async def _find_by_id(self, pending: Sequence[_Pending]) -> None:
        """Set the hits of queries that start from one stored item: the server takes its vector from where it is.

        It refuses all of them where one has no such item, or no vector yet. Those that it leaves are looked up, which tells which it was.
        """
        for one in pending:
            one.answer = self._validate(one.query)
        if not (valid := [one for one in pending if not one.failed]):
            return
        meanings = [index_ids(_only_id(one.query), self._index.manifest.catalogue) for one in valid]
        using = TEXT if self._index.manifest.facts is None else ITEM
        guesses = [uids[0] if self._uuid_is_own else uids[-1] for uids in meanings]
        searches = [
            self._search(one.query, StoredQuery(guess, using), frozenset(uids), exact=False)
            for one, uids, guess in zip(valid, meanings, guesses, strict=True)
        ]
        facts = self._index.retrieve([uid for uids in meanings for uid in uids])
        answers, stored = await asyncio.gather(self._index.search(searches), facts, return_exceptions=True)
        for result in (answers, stored):
            if isinstance(result, BaseException) and (isinstance(result, IndexUnreachableError) or not isinstance(result, _REFUSED)):
                raise result
        if not isinstance(stored, list):
            return
        examples = iter(stored)
        there = [{uid: hit for uid in uids if (hit := next(examples)) is not None and not hit.payload.get("deleted")} for uids in meanings]
        for uids, found in zip(meanings, there, strict=True):
            if len(uids) > 1 and len(found) == 1:
                self._uuid_is_own = uids[0] in found
        if not isinstance(answers, list):
            return
        for one, guess, found, search, hits in zip(valid, guesses, there, searches, answers, strict=True):
            if found.keys() == {guess}:
                one.likes = [_ResolvedExample(guess, found[guess].payload["item"])]
                one.search, one.score_type = search, "cosine"
                one.hits = hits if search.with_payload else await self._page(one.query, hits)
                one.found = True

    def _validate(self, query: Query) -> MatineeError | None:
        """Why the version can't be asked for it. The engine would refuse all searches of a batch for one such filter."""
        attributes = self._index.manifest.declared
        try:
            query.filter.condition(attributes)
            query.options.check(attributes)
        except (FilterError, UnknownAttributeError) as error:
            return error
        return None

    async def _page(self, query: Query, hits: Sequence[Hit]) -> list[Hit]:
        """The hits of one page with their payloads: those of the other candidates are not worth reading."""
        start = query.options.offset or 0
        page = sort_hits(hits, query.options, self._index.manifest.declared)[start : start + query.k]
        stored = await self._index.retrieve([hit.id for hit in page])
        # One that was deleted since it was found has no facts any more.
        there = ((hit, one) for hit, one in zip(page, stored, strict=True) if one is not None and not one.payload.get("deleted"))
        return [replace(hit, payload=one.payload) for hit, one in there]

    async def _complete_groups(self, pending: Sequence[_Pending]) -> None:
        """Set the hits of groups that the best candidates lack."""
        attributes = self._index.manifest.declared
        runs = [GroupSearch(one.search, one.query.options, attributes).further_hits(one.hits, one.query.k) for one in pending]
        for one, further in zip(pending, await run_rounds(self._index, runs), strict=True):
            one.further = further

    async def _find_and_rank(self, pending: Sequence[_Pending]) -> None:
        await self._find(pending)
        for one in pending:
            one.answer = one.answer or self._rank(one)

    async def find(self, example: Example) -> ItemFacts:
        """The facts of the one item that an id or a title stands for. Raises what a recommendation from it would."""
        pending = _Pending(ExampleQuery((example,)))
        await self._look_up([pending])
        if isinstance(pending.answer, MatineeError):
            raise pending.answer
        return pending.likes[0].facts

    async def _with_explanation(self, pending: _Pending, answer: RankedItems) -> RankedItems | MatineeError:
        """The answer and how it came about. If the index fails now, this query alone fails, not those that came with it."""
        start = time.perf_counter()
        answered = [card["id"] for card in orjson.loads(answer.items)]
        examples = frozenset(example.id for example in (*pending.likes, *pending.dislikes) if example.id is not None)
        try:
            case = await explain(self._index, pending.search, [*pending.hits, *pending.further], answered, examples - pending.exclude)
        except MatineeError as error:
            return error
        case["explain_ms"] = (time.perf_counter() - start) * 1000
        return replace(answer, debug=case)

    async def _look_up(self, pending: Sequence[_Pending]) -> None:
        """Set the examples and the exclusions of each query, or the error that ends it. All examples are fetched in one read."""
        queries = [one.query for one in pending if isinstance(one.query, ExampleQuery)]
        by_title = await self._resolve_titles(queries)
        ids = {example.id for query in queries for example in (*query.likes, *query.dislikes) if example.id and example.vector is None}
        ids |= {one.id for one in by_title.values() if isinstance(one, Resolution)}
        stored = await locate(self._index, sorted(ids), vectors=True)
        meanings = {id: index_ids(id, self._index.manifest.catalogue) for query in queries for id in query.exclude}
        present = await self._index.present([uid for uids in meanings.values() for uid in uids]) if meanings else set()
        for one in pending:
            if isinstance(one.query, ExampleQuery):
                one.exclude = frozenset(uid for id in one.query.exclude for uid in meanings[id])
                one.exclude_unknown = tuple(sorted(id for id in one.query.exclude if present.isdisjoint(meanings[id])))
                try:
                    one.likes = [_resolve_example(example, by_title, stored) for example in one.query.likes]
                    one.dislikes = [_resolve_example(example, by_title, stored) for example in one.query.dislikes]
                except MatineeError as error:
                    one.answer = error

    async def _resolve_titles(self, queries: Sequence[ExampleQuery]) -> dict[str, Resolution | MatineeError]:
        groups = [[example.title for example in (*q.likes, *q.dislikes) if example.title] for q in queries]
        # The titles of all queries share one time budget. Those of a query with many long titles come last, and are late alone.
        groups.sort(key=lambda group: sum(map(len, group)))
        return await titles.resolve_all(self._index, [title for group in groups for title in group])

    def _plan(self, pending: _Pending) -> tuple[Search, ScoreType]:
        query = pending.query
        if isinstance(query, TextQuery):
            text_query, score_type = self._text_query(query)
            return self._search(query, text_query, frozenset(), query.exact), score_type
        example_query, score_type = _example_query(query, pending.likes, pending.dislikes, self._index.manifest.facts)
        exclude = pending.exclude | {example.id for example in (*pending.likes, *pending.dislikes) if example.id is not None}
        return self._search(query, example_query, exclude, exact=False), score_type

    def _search(
        self,
        request: Query,
        query: EngineQuery,
        exclude: frozenset[str],
        exact: bool,
    ) -> Search:
        explains = isinstance(request, ExampleQuery) and request.explain and len(request.likes) > 1
        plain_page = (
            request.options.needs_candidates and not request.options.reads_attributes and not request.diversity and not request.debug
        )
        return Search(
            query,
            candidates(request),
            filter=request.filter,
            exclude=exclude,
            exact=exact,
            with_payload=not plain_page,
            with_vectors=request.diversity > 0 or explains,
        )

    def _text_query(self, query: TextQuery) -> tuple[DenseQuery | SparseQuery | HybridQuery, ScoreType]:
        if query.mode == "sparse" or query.vector is None:
            return SparseQuery(self._bm25.query(query.text), BM25), "bm25"
        if query.mode == "dense":
            return DenseQuery(query.vector), "cosine"
        terms = self._bm25.query(query.text)
        if not terms.indices:
            # Nothing but stop words or signs: the sparse side has no say, and fusing with an empty list would only hide the cosine.
            return DenseQuery(query.vector), "cosine"
        s = self._settings
        prefetch = max(s.prefetch, candidates(query))
        return HybridQuery(query.vector, terms, s.fusion, s.rrf_k, s.weights, prefetch), s.fusion

    def _rank(self, pending: _Pending) -> RankedItems:
        query, options, attributes = pending.query, pending.query.options, self._index.manifest.declared
        hits, start = pending.hits, options.offset or 0
        if pending.search.with_payload:
            hits = sort_hits(hits, options, attributes)
        else:
            start = 0
        facets = count_facets(hits, options, attributes) if options.facets else None
        if query.diversity and not options.sort:
            hits = diversify(hits, start + query.k if options.group_by is None else len(hits), query.diversity)
        chosen = [hit for group in group_hits([*hits, *pending.further], options, attributes)[start : start + query.k] for hit in group]
        explain = isinstance(query, ExampleQuery) and query.explain
        vectors = _vectors(pending.likes)
        known = [LikedFacts(like.facts) for like in pending.likes] if explain else []
        cards = []
        for hit in chosen:
            facts = hit.payload["item"]
            card: dict[str, object] = {"id": hit.id, "score": round(hit.score, SCORE_DIGITS), "item": select_fields(facts, options.fields)}
            if options.group_by is not None:
                card["group"] = group_of(hit, options, attributes)
            if explain and pending.likes:
                nearest = nearest_like(hit.vector, vectors)
                like, shared = pending.likes[nearest], known[nearest].shared_with(facts)
                card["because"] = like.id
                card["reason"] = reason_sentence(like.facts["title"], facts["title"], shared, self._reasons_in)
            cards.append(card)
        likes: tuple[ResolvedLike, ...] = tuple(
            {"id": like.id, "title": like.facts.get("title"), "year": like.facts.get("year")} for like in pending.likes
        )
        items = orjson.dumps(cards)
        return RankedItems(items, len(cards), pending.score_type, likes, exclude_unknown=pending.exclude_unknown, facets=facets)


def _is_by_id(query: Query) -> bool:
    """Whether it starts from one item that is named by its id alone, and nothing but its neighbours is asked for."""
    if not isinstance(query, ExampleQuery) or query.dislikes or query.exclude or query.text is not None or query.debug:
        return False
    return len(query.likes) == 1 and query.likes[0].title is None and query.likes[0].vector is None and bool(query.likes[0].id)


def _only_id(query: Query) -> str:
    return query.likes[0].id or "" if isinstance(query, ExampleQuery) else ""


def _vectors(examples: Sequence[_ResolvedExample]) -> list[Vector]:
    return [example.vector for example in examples if example.vector is not None]


async def _inline(work: Callable[[], "list[RankedItems]"]) -> "list[RankedItems]":
    return work()


def _resolve_example(
    example: Example, by_title: Mapping[str, Resolution | MatineeError], stored: Mapping[str, Hit | None]
) -> _ResolvedExample:
    if example.vector is not None:
        return _ResolvedExample(example.id, example.facts or {}, example.vector)
    hit = stored[example.id] if example.id else None
    if example.title:
        named = by_title[example.title]
        if hit is None or hit.payload.get("deleted"):
            if isinstance(named, MatineeError):
                raise named
            hit = stored[named.id]
        else:
            titles.check_unambiguous(example.title, hit, named)
    if not example.id and not example.title:
        raise NotFoundError("an example has neither an id nor a title: give one of them, or a whole item")
    if hit is None or hit.payload.get("deleted"):
        raise NotFoundError(f"no item has the id {example.id or example.title!r}: look it up with GET /v1/items?q=TITLE")
    if hit.vector is None:
        raise NotFoundError(f"item {hit.id} is not embedded yet: ask again in a moment")
    return _ResolvedExample(hit.id, hit.payload["item"], hit.vector)


def _example_query(
    query: ExampleQuery, likes: Sequence[_ResolvedExample], dislikes: Sequence[_ResolvedExample], facts: FactWeights | None
) -> tuple[DenseQuery | RecommendationQuery | PopularQuery, ScoreType]:
    using = TEXT
    if facts is not None and query.text is None:
        # Item-to-item similarity uses facts too. A text has no facts, so a request with a text compares everything as text.
        using = ITEM
        likes, dislikes = (
            [
                replace(example, vector=item_vector(vector, example.facts, facts))
                for example, vector in zip(group, _vectors(group), strict=True)
            ]
            for group in (likes, dislikes)
        )
    positive = _vectors(likes) + ([] if query.text is None else [query.text])
    negative = _vectors(dislikes)
    if not positive and not negative:
        return PopularQuery(), "popularity"
    if len(positive) == 1 and not negative:
        return DenseQuery(positive[0], using), "cosine"
    if query.strategy == "best" or not positive:
        return RecommendationQuery(positive, negative, "best", using), "best_score"
    return RecommendationQuery(positive, negative, "average", using), "cosine"
