"""The gateway's logic: requests -> calls to embedder, enhancer and retriever -> answers. Keeps no state but caches of pure functions.

Does not know HTTP (`serve.api`) nor Ray (`serve.graph.handles`): it gets one coroutine function for each part of the graph.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TypeVar

import numpy as np

from matinee.errors import (
    DeadlineError,
    FingerprintError,
    ModelError,
    ModelServerError,
    OverloadedError,
)
from matinee.index.ids import as_uuid
from matinee.index.types import Payload
from matinee.items import MAX_OVERVIEW, Item
from matinee.memory_cache import MemoryCache
from matinee.models.types import Description, Kind
from matinee.recommend import titles
from matinee.recommend.queries import Example, ExampleQuery, RankedItems, Strategy, TextQuery
from matinee.settings.index import Recipe
from matinee.settings.tree import Settings
from matinee.text import templates
from matinee.text.recipe import ItemTexts
from matinee.vectors import Matrix, Vector
from serve.errors import EncoderReplacedError, RequestError, SwitchedOffError, UnavailableError
from serve.graph import messages
from serve.graph.context import RequestContext
from serve.graph.parts import Graph
from serve.graph.requests import ExampleItem, RankingRequest, RecommendRequest, SearchRequest, SimilarRequest
from serve.telemetry.metrics import Metrics

Result = TypeVar("Result")

DESCRIPTION_S = 60.0
"""How long a gateway keeps a description: a replaced model's description may be served for that long."""

_FEW_ITEMS = 5
"""Up to so many items, a request's descriptions go before bulk work. Each one costs the enhancer as much as a whole search."""

LATE = (DeadlineError, OverloadedError, UnavailableError, ModelServerError, ModelError)
"""Errors of an optional part that degrade an answer instead of failing it: late, full, unreachable, or without its model."""


class _Caches:
    """Results of pure functions, which know no catalogue: one set for a whole gateway replica."""

    def __init__(self, settings: Settings) -> None:
        embedder, enhancer = settings.embedder, settings.enhancer
        self.vectors: MemoryCache[tuple[Kind, str], tuple[str, Vector]] = MemoryCache(
            embedder.cache_bytes, max_entries=embedder.cache_entries
        )
        self.descriptions: MemoryCache[str, Description] = MemoryCache(
            enhancer.cache_bytes, max_entries=enhancer.cache_entries, ttl_s=DESCRIPTION_S
        )
        self.described_by: str | None = None
        # Cold items may fill half of the queue, and wait here for their turn. The other half is for describe and writes.
        self.turns = asyncio.Semaphore(max(1, enhancer.bulk_waiting // 2))


class Gateway:
    """One gateway replica's answers from one catalogue: the default one, or another (`in_catalogue`)."""

    def __init__(self, settings: Settings, graph: Graph, metrics: Metrics) -> None:
        self.settings = settings
        self.graph = graph
        self.metrics = metrics
        self._catalogue = ""
        self._caches = _Caches(settings)

    def in_catalogue(self, settings: Settings) -> "Gateway":
        """The same replica's answers from the catalogue of `settings`, which is not the default one."""
        other = Gateway(settings, self.graph, self.metrics)
        other._catalogue, other._caches = settings.catalogue, self._caches
        return other

    def new_context(self) -> RequestContext:
        return RequestContext(time.monotonic() + self.settings.serving.deadline_s)

    # recommend and search

    async def recommend(self, request: RecommendRequest, context: RequestContext) -> RankedItems:
        return await self._recommend(
            request,
            context,
            likes=request.likes,
            dislikes=request.dislikes,
            text=request.text,
            strategy=request.strategy,
            exclude=request.exclude,
            explain=request.explain,
            enhance=request.enhance,
        )

    async def similar(self, request: SimilarRequest, context: RequestContext) -> RankedItems:
        """Like a recommendation with this item as the only like."""
        return await self._recommend(request, context, likes=(request,), exclude=request.exclude)

    async def _recommend(
        self,
        request: RankingRequest,
        context: RequestContext,
        *,
        likes: Sequence[str | ExampleItem],
        exclude: Sequence[str],
        dislikes: Sequence[str | ExampleItem] = (),
        text: str | None = None,
        strategy: Strategy = "average",
        explain: bool = True,
        enhance: bool | None = None,
    ) -> RankedItems:
        k = self._k(request)
        examples = (*likes, *dislikes)
        titles.check_count(self._titles(examples))
        texts = [templates.query_text(self._check_text(text))] if text else []
        cold = [e.item for e in examples if isinstance(e, ExampleItem) and e.item is not None]
        cold_texts = await self._cold_texts(cold, enhance, context)

        def query(vectors: list[Vector]) -> ExampleQuery:
            cold_vectors = iter(cold_texts.join(np.array(vectors[len(texts) :])) if cold else ())
            return ExampleQuery(
                tuple(self._example(example, cold_vectors) for example in likes),
                tuple(self._example(example, cold_vectors) for example in dislikes),
                vectors[0] if texts else None,
                strategy,
                k,
                request.filter,
                frozenset(exclude),
                request.diversity,
                explain,
                request.debug,
                request.options(),
            )

        return await self._embed_and_rank({"query": texts, "document": cold_texts.flat}, query, context)

    async def search(self, request: SearchRequest, context: RequestContext) -> RankedItems:
        k = self._k(request)
        text = templates.query_text(self._check_text(request.text))
        mode = request.mode or self.settings.search.mode
        wider = await self._expansion(text, context) if request.expand and mode != "sparse" else text

        def query(vectors: list[Vector]) -> TextQuery:
            vector = vectors[0] if vectors else None
            return TextQuery(text, vector, mode, k, request.filter, request.diversity, request.exact, request.debug, request.options())

        return await self._embed_and_rank({"query": [] if mode == "sparse" else [wider]}, query, context)

    async def _embed_and_rank(
        self, texts: dict[Kind, Sequence[str]], query: Callable[[list[Vector]], ExampleQuery | TextQuery], context: RequestContext
    ) -> RankedItems:
        """Embed `texts` and rank what `query` makes of their vectors; once more without the cache if the encoder was replaced meanwhile."""
        for retry in (True, False):
            try:
                fingerprint, vectors = await self._embed(texts, context)
                return await self.retrieve(messages.Rank(query(vectors), fingerprint, context.bulk), context)
            except FingerprintError:
                if not retry:
                    raise
                self._caches.vectors.clear()
        raise AssertionError("unreachable")

    def _k(self, request: RankingRequest) -> int:
        """How many items are wanted: as the request says, or as by default as far as the limit goes."""
        limit = self.settings.search.max_k
        if request.k > limit and "k" in request.model_fields_set:
            raise RequestError(422, f"k: {request.k} is above the limit of {limit} (search.max_k); page through GET /v1/items for more")
        return min(request.k, limit)

    def _check_text(self, text: str) -> str:
        limit = self.settings.serving.max_text_chars
        if len(text) > limit:
            raise RequestError(422, f"text: {len(text)} characters, at most {limit} are allowed (serving.max_text_chars)")
        return text

    def _titles(self, examples: Sequence[str | ExampleItem]) -> set[str]:
        """The examples that have to be looked up by their title."""
        texts = {e for e in examples if isinstance(e, str) and as_uuid(e) is None}
        return texts | {e.title for e in examples if isinstance(e, ExampleItem) and e.title is not None}

    def _example(self, example: str | ExampleItem, cold_vectors: Iterator[Vector]) -> Example:
        if isinstance(example, str):
            return Example(id=example) if as_uuid(example) else Example(example, self._check_text(example))
        if example.item is not None:
            return Example(example.item.uid(self.settings.catalogue), facts=example.item.facts(), vector=next(cold_vectors))
        if example.id is not None:
            return Example(id=example.id)
        return Example(title=self._check_text(example.title or ""))

    # the parts

    async def retrieve(self, message: messages.RetrieverMessage[Result], context: RequestContext) -> Result:
        """The Retriever's answer to `message`, from this catalogue."""
        sent = messages.In(self._catalogue, message) if self._catalogue else message
        with context.stage("retrieve"):
            return await self.graph.retriever(sent, context.deadline)

    async def manage(self, message: messages.CataloguesMessage[Result], context: RequestContext) -> Result:
        """The Retriever's answer to a message about its catalogues."""
        with context.stage("retrieve"):
            return await self.graph.retriever(message, context.deadline)

    async def _embed(self, texts: dict[Kind, Sequence[str]], context: RequestContext) -> tuple[str | None, list[Vector]]:
        """Vectors of all texts, in the order of `texts`' kinds, and the one fingerprint that made them."""
        keys = [(kind, text) for kind, group in texts.items() for text in group]
        if not keys:
            return None, []
        known = {key: cached for key in keys if (cached := self._caches.vectors.get(key)) is not None}
        for key in keys:
            self.metrics.cache(cache="vectors", result="hit" if key in known else "miss")
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        with context.stage("embed"):
            for kind in texts:
                group = tuple(text for k, text in missing if k == kind)
                if not group:
                    continue
                pieces = _pieces(group, self.settings.embedder.encode_tokens)
                replies = await asyncio.gather(
                    *(self.graph.embedder(messages.Embed(piece, kind, context.bulk, self._catalogue), context.deadline) for piece in pieces)
                )
                known |= {
                    (kind, text): (one.fingerprint, vector)
                    for piece, one in zip(pieces, replies, strict=True)
                    for text, vector in zip(piece, one.vectors, strict=True)
                }
        fingerprints = {fingerprint for fingerprint, _ in known.values()}
        if len(fingerprints) > 1:
            raise EncoderReplacedError("the embedder was replaced while this request was under way: send it again")
        for key in missing:
            fingerprint, vector = known[key]
            # A copy, because a view of one row would keep the whole batch in memory.
            self._caches.vectors.put(key, (fingerprint, vector.copy()))
        return fingerprints.pop(), [known[key][1] for key in keys]

    async def _cold_texts(self, items: Sequence[Item], enhance: bool | None, context: RequestContext) -> ItemTexts:
        """The texts of items that are not in the index, made as those of the indexed ones were (or as the caller asks)."""
        if not items:
            return ItemTexts((), (), "raw")
        recipe = await self.recipe(context)
        if enhance is not None:
            recipe = ("both" if recipe == "raw" else recipe) if enhance else "raw"
        if recipe == "raw":
            return ItemTexts(items, [None] * len(items), recipe)
        # A request with many items is bulk work: other requests' descriptions go first.
        bulk = context.bulk or len(items) > _FEW_ITEMS
        # Together: they share the enhancer's deadline, which leaves time to embed and to rank.
        descriptions = await asyncio.gather(*(self._describe_or_degrade(item, context, bulk=bulk) for item in items))
        return ItemTexts(items, [None if one is None else one.text for one in descriptions], recipe)

    async def recipe(self, context: RequestContext) -> Recipe:
        status = await self.retrieve(messages.ReadStatus(), context)
        if status.manifest is None:
            raise status.absence()
        return status.manifest.recipe

    async def _describe_or_degrade(self, item: Item, context: RequestContext, *, bulk: bool) -> Description | None:
        try:
            if not bulk:
                return await self.describe(item, context, bulk=False)
            # The wait for a turn counts: all of a request's items have the time of one.
            async with asyncio.timeout(self._description_ends(context) - time.monotonic()), self._caches.turns:
                return await self.describe(item, context)
        except (*LATE, TimeoutError) as error:
            if "enhancer" not in context.degraded:
                context.degraded.append("enhancer")
                self.metrics.degraded(part="enhancer", reason=getattr(error, "code", DeadlineError.code))
            return None

    def _description_ends(self, context: RequestContext) -> float:
        """The moment at which a request that begins to wait now stops waiting for its description."""
        return min(context.deadline, time.monotonic() + self.settings.enhancer.deadline_s)

    async def _expansion(self, text: str, context: RequestContext) -> str:
        """The query with a description of what it might mean (HyDE: Gao et al., 2022), or alone where the enhancer is late."""
        item = Item(title=text[:200], overview=text[:MAX_OVERVIEW])
        description = await self._describe_or_degrade(item, context, bulk=context.bulk)
        return text if description is None else f"{text} {description.text}"

    async def describe(self, item: Item, context: RequestContext, *, bulk: bool = True) -> Description:
        """Raises `SwitchedOffError` where the enhancer is switched off. `bulk`: no search waits for it."""
        if self.graph.enhancer is None:
            raise SwitchedOffError("the enhancer is switched off here (enhancer.enabled)")
        # The whole item: the fact check reads facts that the prompt leaves out, and one user's item must not reach another user.
        key = item.model_dump_json()
        cached = self._caches.descriptions.get(key)
        self.metrics.cache(cache="descriptions", result="miss" if cached is None else "hit")
        if cached is not None:
            return cached
        with context.stage("enhance"):
            description = await self.graph.enhancer(messages.Describe(item, bulk, self._catalogue), self._description_ends(context))
        if description.model != self._caches.described_by:
            self._caches.descriptions.clear()
            self._caches.described_by = description.model
        self._caches.descriptions.put(key, description)
        return description

    async def embed_items(
        self, items: Sequence[Item], descriptions: Sequence[str | None], recipe: Recipe, context: RequestContext
    ) -> tuple[str, Matrix]:
        """Fingerprint and float32[n, d] of items under `recipe`."""
        # Off the loop: the texts of many long items take long to clean.
        texts = await asyncio.to_thread(ItemTexts, items, descriptions, recipe)
        embedded = await self.embed(texts.flat, "document", context)
        return embedded.fingerprint, texts.join(embedded.vectors)

    async def embed(self, texts: Sequence[str], kind: Kind, context: RequestContext) -> messages.Embedded:
        """Vectors of the texts, unchanged and without the caches: bulk callers ask for a text only once.

        They go in pieces of about one encode each, so that no search waits for all of them.
        """
        with context.stage("embed"):
            pieces = _pieces(texts, self.settings.embedder.encode_tokens)
            calls = [self.graph.embedder(messages.Embed(piece, kind, True, self._catalogue), context.deadline) for piece in pieces]
            replies = await _all_or_none(calls)
        if len({piece.fingerprint for piece in replies}) > 1:
            raise EncoderReplacedError("the embedder was replaced while these texts were embedded: send them again")
        return messages.Embedded(replies[0].fingerprint, np.concatenate([piece.vectors for piece in replies]))

    async def find_stored(self, id: str, context: RequestContext) -> tuple[str, Payload]:
        """Index id and payload of an item, by the catalogue's id or the index'; raises a 404 where there is none."""
        [entry] = await self.retrieve(messages.Fetch((id,)), context)
        if entry is None:
            raise RequestError(404, f"no item has the id {id!r}: look it up with GET /v1/items?q=TITLE")
        return entry


def _pieces(texts: Sequence[str], max_tokens: int) -> list[tuple[str, ...]]:
    """Runs of texts with about `max_tokens` tokens; a longer text is one of its own, and no text at all is one empty piece."""
    pieces: list[tuple[str, ...]] = []
    piece: list[str] = []
    left = max_tokens
    for text in texts:
        left -= (tokens := messages.about_tokens(text))
        if piece and left < 0:
            pieces.append(tuple(piece))
            piece, left = [], max_tokens - tokens
        piece.append(text)
    return [*pieces, tuple(piece)]


async def _all_or_none(calls: Sequence[Coroutine[object, None, Result]]) -> list[Result]:
    """All results. If one fails, the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
