"""The catalogue without a server: what the CLI does itself while none is alive. Same requests, same answers as the HTTP API.

Opens the index for the length of one command. Does not write items: that is `matinee ingest`'s and the API's work.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

import orjson

from matinee.errors import IndexLockedError, MatineeError
from matinee.filters import ItemFilter
from matinee.index.active import ActiveIndex
from matinee.index.catalogues import own_settings
from matinee.index.factory import open_store
from matinee.index.ids import as_uuid
from matinee.index.protocols import Index, closing
from matinee.index.types import Manifest
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.models.enhancer import Enhancer
from matinee.recommend import titles
from matinee.recommend.queries import Example, ExampleQuery, Query, TextQuery
from matinee.recommend.recommender import Recommender
from matinee.recommend.results import DescribedItem, RankedAnswer, VersionEntry, VersionList
from matinee.settings.tree import Mode, Settings
from matinee.text import templates


class OfflineCatalogue:
    """This machine's index and models, loaded when a command first needs them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = asyncio.run(own_settings(settings))

    def search(self, text: str, *, mode: Mode | None, k: int, filter: ItemFilter, diversity: float) -> RankedAnswer:
        search_mode = mode or self._settings.search.mode
        text = templates.query_text(text)
        vector, fingerprint = None, None
        if search_mode != "sparse":
            embedder = self._embedder()
            [vector], fingerprint = embedder.encode([text], kind="query"), embedder.fingerprint
        return asyncio.run(self._answer(TextQuery(text, vector, search_mode, k, filter, diversity), fingerprint))

    def recommend(
        self, likes: Sequence[str], dislikes: Sequence[str], *, text: str | None, k: int, filter: ItemFilter, diversity: float
    ) -> RankedAnswer:
        examples = [tuple(map(_example, group)) for group in (likes, dislikes)]
        titles.check_count({example.title for group in examples for example in group if example.title is not None})
        vector, fingerprint = None, None
        if text:
            embedder = self._embedder()
            [vector], fingerprint = embedder.encode([templates.query_text(text)], kind="query"), embedder.fingerprint
        call = ExampleQuery(examples[0], examples[1], vector, k=k, filter=filter, diversity=diversity)
        return asyncio.run(self._answer(call, fingerprint))

    def describe(self, title: str) -> DescribedItem:
        item = asyncio.run(self._find(title))
        settings = self._settings
        enhancer = Enhancer.load(settings.enhancer, settings.models_dir, artifacts=settings.artifacts_uri, language=settings.language)
        [written] = enhancer.describe([item])
        return {
            "description": written.text,
            "source": written.source,
            "marked": written.marked,
            "violations": list(written.violations),
            "item": item.facts(),
        }

    def info(self) -> dict[str, object]:
        current, previous = asyncio.run(self._manifests())
        index = None if current is None else current.model_dump(mode="json") | {"previous": previous and previous.version}
        return {"server": None, "home": str(self._settings.home_dir), "catalogue": self._settings.catalogue, "index": index}

    def versions(self) -> VersionList:
        return asyncio.run(self._versions())

    async def _versions(self) -> VersionList:
        async with closing(open_store(self._settings)) as store:
            current, previous = await store.current(), await store.previous()
            manifests = await store.versions()
        return {
            "current": None if current is None else current.version,
            "previous": None if previous is None else previous.version,
            "versions": [_entry(manifest) for manifest in manifests],
        }

    def rollback(self) -> VersionEntry:
        """Make the previous version current. API writes are carried over here, or within seconds by a running server's Retriever."""
        return _entry(asyncio.run(self._rollback()))

    async def _rollback(self) -> Manifest:
        store = open_store(self._settings)
        async with closing(ActiveIndex(store)) as active:
            if await store.previous() is not None:
                await _refresh_unless_served(active)
            manifest = await store.rollback()
            await _refresh_unless_served(active)
            return manifest

    async def _manifests(self) -> tuple[Manifest | None, Manifest | None]:
        async with closing(open_store(self._settings)) as store:
            return await store.current(), await store.previous()

    async def _find(self, title: str) -> Item:
        async with closing(ActiveIndex(open_store(self._settings))) as active:
            await active.refresh()
            recommender = self._recommender(active.get())
            return Item.model_validate(await recommender.find(_example(title)))

    async def _answer(self, query: Query, fingerprint: str | None) -> RankedAnswer:
        async with closing(ActiveIndex(open_store(self._settings))) as active:
            await active.refresh()
            recommender = self._recommender(active.get(fingerprint))
            [answer] = await recommender.answer([query])
        if isinstance(answer, MatineeError):
            raise answer
        return {"items": orjson.loads(answer.items), "score_type": answer.score_type, "likes": list(answer.likes), "degraded": []}

    def _recommender(self, index: Index) -> Recommender:
        settings = self._settings
        return Recommender(index, settings.search, language=settings.embedder.language, reasons_in=settings.language)

    def _embedder(self) -> Embedder:
        # Measuring precisions takes longer than one query at any of them.
        quick = self._settings.embedder.model_copy(update={"precision": "fp32"})
        return Embedder.load(quick, self._settings.models_dir, artifacts=self._settings.artifacts_uri)


def _entry(manifest: Manifest) -> VersionEntry:
    return cast(VersionEntry, manifest.model_dump(mode="json"))


def _example(text: str) -> Example:
    """An id, or a title where no item has it."""
    return Example(id=text) if as_uuid(text) else Example(text, text)


async def _refresh_unless_served(active: ActiveIndex) -> None:
    try:
        await active.refresh()
    except IndexLockedError:
        # A server has it open, and does the same itself.
        return
