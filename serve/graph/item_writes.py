"""Writes through the API: put, delete, and the background job that finishes what a write left for later.

A put embeds the raw text at once, so that the item is found; its description, where the recipe wants one, follows in the background,
bounded and resumable: what is left to do is written in the index itself (`pending`).
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from matinee.errors import FingerprintError, MatineeError, OverloadedError
from matinee.index.active import Written
from matinee.index.points import item_point
from matinee.index.types import Payload, Point, item_payload
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.settings.index import Recipe
from matinee.text.recipe import reads_alike
from matinee.vectors import Vector
from serve.errors import RequestError, problems
from serve.graph import messages
from serve.graph.context import RequestContext
from serve.graph.gateway import Gateway
from serve.graph.tasks import BackgroundWork

log = logging.getLogger(__name__)

_MAX_PENDING = 8
_PATCH_TRIES = 5


@dataclass(frozen=True, slots=True)
class ItemState:
    """The state of an item after a write: found at once, described later if the recipe wants a description."""

    id: str
    revision: int
    searchable: bool = True
    enriched: bool = False


def _apply_patch(facts: Mapping[str, object], patch: Mapping[str, object]) -> tuple[Item, Item]:
    """A stored item, and the same after a merge patch."""
    before = Item.model_validate(facts)
    return before, before.apply_patch(patch)


class ItemWrites(BackgroundWork):
    """Changes to the active index, on behalf of one gateway."""

    def __init__(self, gateway: Gateway, *, idle_s: float = 5.0) -> None:
        self._gateway = gateway
        self._idle_s = idle_s
        self._bm25 = Bm25Encoder(gateway.settings.embedder.language)
        self._pending_limit = _MAX_PENDING

    def uid(self, item: Item) -> str:
        """The item's id in the index."""
        return item.uid(self._gateway.settings.catalogue)

    async def put(self, items: Sequence[Item], context: RequestContext) -> list[ItemState]:
        """Add or replace; returns id, revision and state of each item."""
        uids = [self.uid(item) for item in items]
        if len(set(uids)) != len(uids):
            twice = next(item.title for i, item in enumerate(items) if uids[i] in uids[:i])
            raise RequestError(422, f"items: {twice!r} is there twice (same id, or same kind, title and year)")
        written = await self.write(dict(zip(uids, items, strict=True)), context)
        return [ItemState(uid, written.revision) for uid in uids]

    async def write(self, items: Mapping[str, Item], context: RequestContext, asked: int | None = None) -> Written:
        """Add or replace items by their index ids; with `asked`, only those that nobody wrote or deleted since (`ActiveIndex.upsert`)."""
        for attempt in (0, 1):
            try:
                return await self._write(items, context, asked)
            except FingerprintError:
                if attempt:
                    raise
        raise AssertionError("unreachable")

    async def _write(self, items: Mapping[str, Item], context: RequestContext, asked: int | None) -> Written:
        fingerprint, vectors = await self._gateway.embed_items([*items.values()], [None] * len(items), "raw", context)

        # The Retriever gives them their revision: it knows those that are there already.
        def points() -> tuple[Point, ...]:
            payloads = (item_payload(item, origin="api", revision=0) for item in items.values())
            return tuple(self._point(*each, "raw") for each in zip(items, items.values(), vectors, payloads, strict=True))

        # Words and trigrams of a hundred long items take a tenth of a second: every other request would wait for them on the loop.
        made = await asyncio.to_thread(points)
        return await self._gateway.retrieve(messages.Write(made, fingerprint, "raw", asked=asked), context)

    async def patch(self, id: str, patch: Mapping[str, object], context: RequestContext) -> tuple[str, Payload]:
        """Change facts of an item by a JSON merge patch; returns its index id and payload. One that changes nothing writes nothing.

        The encoder runs only if the text changes. Otherwise the item keeps its text vector, and the index computes the item vector again.
        """
        for _ in range(_PATCH_TRIES):
            uid, payload = await self._gateway.find_stored(id, context)
            try:
                # A large item takes up to a quarter of a second to validate, as a large body does.
                before, after = await asyncio.to_thread(_apply_patch, payload["item"], patch)
            except ValidationError as error:
                raise RequestError(422, problems(error.errors(include_url=False))) from None
            except ValueError as error:
                raise RequestError(422, str(error)) from None
            if after == before:
                return uid, payload
            try:
                written, changed = await self._change(uid, payload, before, after, context)
            except FingerprintError:
                continue
            if written.count:
                return uid, changed | {"revision": written.revision}
        raise OverloadedError(f"the item {id!r} is being changed by others; send the patch again in a moment")

    async def _change(self, uid: str, payload: Payload, before: Item, after: Item, context: RequestContext) -> tuple[Written, Payload]:
        """Writes `after`, unless another write came first."""
        expected = {uid: payload["revision"]}
        # One that has no description yet was embedded raw, whatever the recipe is.
        recipe: Recipe = "raw" if payload.get("description") is None else await self._gateway.recipe(context)
        if reads_alike(before, after, recipe):
            changed = item_payload(after, origin="api", revision=0, description=payload.get("description"))
            point = await asyncio.to_thread(self._point, uid, after, None, changed, recipe)
            return await self._gateway.retrieve(messages.Change((point,), expected), context), changed
        fingerprint, vectors = await self._gateway.embed_items([after], [None], "raw", context)
        changed = item_payload(after, origin="api", revision=0)
        point = await asyncio.to_thread(self._point, uid, after, vectors[0], changed, "raw")
        return await self._gateway.retrieve(messages.Change((point,), expected, fingerprint, "raw"), context), changed

    async def delete(self, id: str, context: RequestContext) -> str:
        uid = await self._gateway.retrieve(messages.Delete(id), context)
        if uid is None:
            raise RequestError(404, f"no item has the id {id!r}: look it up with GET /v1/items?q=TITLE")
        return uid

    async def delete_many(self, ids: Sequence[str], context: RequestContext, *, dry_run: bool) -> dict[str, str | None]:
        """Index ids of the items that were deleted (or would be), by the ids that were given; None for one that no item has."""
        return await self._gateway.retrieve(messages.DeleteMany(tuple(dict.fromkeys(ids)), dry_run), context)

    def _point(self, uid: str, item: Item, vector: Vector | None, payload: Payload, recipe: Recipe) -> Point:
        return item_point(uid, item, vector, payload, recipe=recipe, bm25=self._bm25)

    async def _run(self) -> None:
        while True:
            try:
                done = await self.enrich_pending()
            except MatineeError as error:
                log.info("background enrichment waits: %s", error)
                done = 0
            except Exception:
                # Nobody awaits this task: a bug that ended it would leave every later write without its description, and say nothing.
                log.exception("background enrichment failed; it goes on")
                done = 0
            if not done:
                await asyncio.sleep(self._idle_s)

    async def enrich_pending(self) -> int:
        """Describe and embed a few pending items; returns how many were finished. An item changed meanwhile stays pending.

        From a random one on: gateways don't do the same work twice, and what can't be described keeps nothing else waiting.
        """
        context = self._gateway.new_context()
        pending = await self._gateway.retrieve(messages.Pending(self._pending_limit, after=str(uuid.uuid4())), context)
        if not pending:
            return 0
        recipe = await self._gateway.recipe(context)
        items = [Item.model_validate(payload["item"]) for _, payload in pending]
        descriptions = [None] * len(items) if recipe == "raw" else await self._describe(items, context)
        ready = [i for i, description in enumerate(descriptions) if recipe == "raw" or description is not None]
        fingerprint, vectors = await self._gateway.embed_items([items[i] for i in ready], [descriptions[i] for i in ready], recipe, context)
        revisions = {pending[i][0]: pending[i][1]["revision"] for i in ready}

        def point(i: int, vector: Vector) -> Point:
            uid, before = pending[i]
            payload = item_payload(items[i], origin="api", revision=before["revision"], description=descriptions[i])
            if "asked" in before:
                payload["asked"] = before["asked"]
            return self._point(uid, items[i], vector, payload, recipe)

        def points() -> tuple[Point, ...]:
            return tuple(point(i, vector) for i, vector in zip(ready, vectors, strict=True))

        written = await self._gateway.retrieve(messages.Write(await asyncio.to_thread(points), fingerprint, recipe, revisions), context)
        return written.count

    async def _describe(self, items: Sequence[Item], context: RequestContext) -> list[str | None]:
        """None where the enhancer failed; raises where it failed for all. Then fewer at once: the batch alone may have been late."""
        descriptions = await asyncio.gather(*(self._gateway.describe(item, context) for item in items), return_exceptions=True)
        failed = [one for one in descriptions if isinstance(one, BaseException)]
        for error in failed:
            if not isinstance(error, MatineeError):
                raise error
        self._pending_limit = max(1, self._pending_limit // 2) if failed else min(_MAX_PENDING, self._pending_limit * 2)
        if len(failed) == len(items):
            raise MatineeError(f"the enhancer is busy: {failed[0]}") from failed[0]
        return [None if isinstance(one, BaseException) else one.text for one in descriptions]
