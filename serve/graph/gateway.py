"""The gateway's logic: requests -> calls to embedder, enhancer and retriever -> answers. Keeps no state but caches of pure functions.

Does not know HTTP (`serve.api`) nor Ray (`serve.graph.handles`): it gets one coroutine function for each part of the graph.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from cachetools import LRUCache, TTLCache

from matinee.errors import DeadlineError, FingerprintError, IndexAbsentError, IndexUnavailableError, MatineeError, OverloadedError
from matinee.index.ids import as_uuid, index_ids
from matinee.items import MAX_OVERVIEW, Item
from matinee.models.types import Description, Kind
from matinee.recommend import titles
from matinee.recommend.recommender import Example, ExampleQuery, RankedItems, TextQuery
from matinee.settings.tree import Recipe, Settings
from matinee.text import templates
from matinee.text.recipe import ItemTexts
from matinee.vectors import Matrix, Vector
from serve.errors import RequestError, UnavailableError
from serve.graph import messages
from serve.graph.parts import Graph, Trace
from serve.graph.requests import ExampleItem, RecommendRequest, SearchRequest
from serve.telemetry.metrics import Metrics

Result = TypeVar("Result")

DESCRIPTION_S = 60.0
"""How long a gateway keeps a description: a replaced model's description may be served for that long."""

LATE = (DeadlineError, OverloadedError, UnavailableError)
"""What makes an answer degraded instead of failed, where the part is optional."""


class Gateway:
    """One gateway replica's answers."""

    def __init__(self, settings: Settings, graph: Graph, metrics: Metrics) -> None:
        self.settings = settings
        self.graph = graph
        self.metrics = metrics
        self._vectors: LRUCache[tuple[Kind, str], tuple[str, Vector]] = LRUCache(max(1, settings.embedder.cache_entries))
        self._descriptions: TTLCache[str, Description] = TTLCache(max(1, settings.enhancer.cache_entries), DESCRIPTION_S)
        self._described_by: str | None = None

    def trace(self) -> Trace:
        return Trace(time.time() + self.settings.serving.deadline_s)

    # recommend and search

    async def recommend(self, request: RecommendRequest, trace: Trace) -> RankedItems:
        self._check_k(request.k)
        titles.check_count(self._titles(request))
        texts = [templates.query_text(self._check_text(request.text))] if request.text else []
        cold = [e.item for e in (*request.likes, *request.dislikes) if isinstance(e, ExampleItem) and e.item is not None]
        cold_texts = await self._cold_texts(cold, request.enhance, trace)

        def call(vectors: list[Vector]) -> ExampleQuery:
            cold_vectors = iter(cold_texts.join(np.array(vectors[len(texts) :])))
            return ExampleQuery(
                tuple(self._example(example, cold_vectors) for example in request.likes),
                tuple(self._example(example, cold_vectors) for example in request.dislikes),
                vectors[0] if texts else None,
                request.strategy,
                request.k,
                request.filter,
                frozenset(request.exclude),
                request.diversity,
                request.explain,
                request.debug,
            )

        return await self._embed_and_rank({"query": texts, "document": cold_texts.flat}, call, trace)

    async def similar(self, id: str, k: int, diversity: float, trace: Trace) -> RankedItems:
        self._check_k(k)
        call = ExampleQuery((Example(id=id),), k=k, diversity=diversity)
        return await self.retrieve(messages.Rank(call), trace)

    async def search(self, request: SearchRequest, trace: Trace) -> RankedItems:
        self._check_k(request.k)
        text = templates.query_text(self._check_text(request.text))
        mode = request.mode or self.settings.search.mode
        wider = await self._expansion(text, trace) if request.expand and mode != "sparse" else text

        def call(vectors: list[Vector]) -> TextQuery:
            vector = vectors[0] if vectors else None
            return TextQuery(text, vector, mode, request.k, request.filter, request.diversity, request.exact, request.debug)

        return await self._embed_and_rank({"query": [] if mode == "sparse" else [wider]}, call, trace)

    async def _embed_and_rank(
        self, texts: dict[Kind, Sequence[str]], call: Callable[[list[Vector]], ExampleQuery | TextQuery], trace: Trace
    ) -> RankedItems:
        """Embed `texts` and rank what `call` makes of their vectors; once more without the cache if the encoder was replaced meanwhile."""
        for retry in (True, False):
            try:
                fingerprint, vectors = await self._embed(texts, trace)
                return await self.retrieve(messages.Rank(call(vectors), fingerprint), trace)
            except FingerprintError:
                if not retry:
                    raise
                self._vectors.clear()
        raise AssertionError("unreachable")

    def _check_k(self, k: int) -> None:
        limit = self.settings.search.max_k
        if k > limit:
            raise RequestError(422, f"k: {k} is above the limit of {limit} (search.max_k); page through GET /v1/items for more")

    def _check_text(self, text: str) -> str:
        limit = self.settings.serving.max_text_chars
        if len(text) > limit:
            raise RequestError(422, f"text: {len(text)} characters, at most {limit} are allowed (serving.max_text_chars)")
        return text

    def _titles(self, request: RecommendRequest) -> set[str]:
        """The examples that have to be looked up by their title."""
        examples = (*request.likes, *request.dislikes)
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

    async def retrieve(self, message: messages.RetrieverMessage[Result], trace: Trace) -> Result:
        """The Retriever's answer to `message`."""
        with trace.stage("retrieve"):
            return await self.graph.retriever(message, trace.deadline)

    async def _embed(self, texts: dict[Kind, Sequence[str]], trace: Trace) -> tuple[str | None, list[Vector]]:
        """Vectors of all texts, in the order of `texts`' kinds, and the one fingerprint that made them."""
        keys = [(kind, text) for kind, group in texts.items() for text in group]
        if not keys:
            return None, []
        known = {key: self._vectors[key] for key in keys if key in self._vectors}
        for key in keys:
            self.metrics.cache(cache="vectors", result="hit" if key in known else "miss")
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        with trace.stage("embed"):
            for kind in texts:
                group = tuple(text for k, text in missing if k == kind)
                if not group:
                    continue
                made = await self.graph.embedder(messages.Embed(group, kind), trace.deadline)
                known |= {(kind, text): (made.fingerprint, vector) for text, vector in zip(group, made.vectors, strict=True)}
        fingerprints = {fingerprint for fingerprint, _ in known.values()}
        if len(fingerprints) > 1:
            raise FingerprintError("the embedder was replaced while this request was under way: send it again")
        if self.settings.embedder.cache_entries:
            self._vectors.update({key: known[key] for key in missing})
        return fingerprints.pop(), [known[key][1] for key in keys]

    async def _cold_texts(self, items: Sequence[Item], enhance: bool | None, trace: Trace) -> ItemTexts:
        """The texts of items that are not in the index, made as those of the indexed ones were (or as the caller asks)."""
        if not items:
            return ItemTexts((), (), "raw")
        recipe = await self.recipe(trace)
        if enhance is not None:
            recipe = ("both" if recipe == "raw" else recipe) if enhance else "raw"
        if recipe == "raw":
            return ItemTexts(items, [None] * len(items), recipe)
        # Together: they share the enhancer's deadline, which leaves time to embed and to rank.
        descriptions = await asyncio.gather(*(self._describe_or_degrade(item, trace) for item in items))
        return ItemTexts(items, [None if one is None else one.text for one in descriptions], recipe)

    async def recipe(self, trace: Trace) -> Recipe:
        status = await self.retrieve(messages.Status(), trace)
        if status.manifest is None:
            if status.trouble:
                raise IndexUnavailableError(status.trouble)
            raise IndexAbsentError("there is no index yet: build one with `matinee ingest FILE`")
        return status.manifest.recipe

    async def _describe_or_degrade(self, item: Item, trace: Trace) -> Description | None:
        try:
            return await self.describe(item, trace)
        except LATE as error:
            if "enhancer" not in trace.degraded:
                trace.degraded.append("enhancer")
                self.metrics.degraded(part="enhancer", reason=error.code)
            return None

    async def _expansion(self, text: str, trace: Trace) -> str:
        """The query with a description of what it might mean (HyDE: Gao et al., 2022), or alone where the enhancer is late."""
        wish = Item(title=text[:200], overview=text[:MAX_OVERVIEW])
        description = await self._describe_or_degrade(wish, trace)
        return text if description is None else f"{text} {description.text}"

    async def describe(self, item: Item, trace: Trace) -> Description:
        """Raises `UnavailableError` where the enhancer is switched off."""
        if self.graph.enhancer is None:
            raise UnavailableError("the enhancer is switched off here (enhancer.enabled)")
        key = templates.facts_text(item)
        cached = self._descriptions.get(key)
        self.metrics.cache(cache="descriptions", result="miss" if cached is None else "hit")
        if cached is not None:
            return cached
        with trace.stage("enhance"):
            deadline = min(trace.deadline, time.time() + self.settings.enhancer.deadline_s)
            description = await self.graph.enhancer(messages.Describe(item), deadline)
        if description.model != self._described_by:
            self._descriptions.clear()
            self._described_by = description.model
        if self.settings.enhancer.cache_entries:
            self._descriptions[key] = description
        return description

    async def embed_items(
        self, items: Sequence[Item], descriptions: Sequence[str | None], recipe: Recipe, trace: Trace
    ) -> tuple[str, Matrix]:
        """Fingerprint and float32[n, d] of items under `recipe`."""
        texts = ItemTexts(items, descriptions, recipe)
        made = await self.embed(texts.flat, "document", trace)
        return made.fingerprint, texts.join(made.vectors)

    async def embed(self, texts: Sequence[str], kind: Kind, trace: Trace) -> messages.Embedded:
        """Vectors of texts as they are, outside of the caches: who asks for them in bulk asks once."""
        with trace.stage("embed"):
            return await self.graph.embedder(messages.Embed(tuple(texts), kind), trace.deadline)

    async def stored(self, id: str, trace: Trace) -> tuple[str, messages.Payload]:
        """Index id and payload of an item, by the catalogue's id or the index'; raises a 404 where there is none."""
        [found] = await self.retrieve(messages.Fetch((id,)), trace)
        if found is None:
            raise RequestError(404, f"no item has the id {id!r}: look it up with GET /v1/items?q=TITLE")
        return found

    async def index_ids(self, ids: Sequence[str], trace: Trace) -> dict[str, str]:
        """Each id as the index writes it. Only a UUID has to be looked up; while the index is out of reach, it counts as an index id."""
        meanings = {id: index_ids(id, self.settings.catalogue) for id in ids}
        own = tuple({uids[0] for uids in meanings.values() if len(uids) > 1})
        try:
            present = await self.retrieve(messages.Present(own), trace) if own else set()
        except MatineeError:
            present = set()
        return {id: next((uid for uid in uids if uid in present), uids[-1]) for id, uids in meanings.items()}
