"""What the API wrote into an index, page by page: a build carries it over (`matinee.index.build`), so that no write is lost.

Does not write, and does not know what is built.
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Protocol, Self

from matinee.index.protocols import Index
from matinee.index.types import Hit, Scroll
from matinee.items import Item

_PAGE = 256
_OVERLAP = 60_000_000
"""Microseconds. Two Retrievers may write at the same moment, so an older revision may arrive this much later."""


@dataclass(frozen=True, slots=True)
class ApiItem:
    """A write of the API: an item, or the tombstone of a deleted one. `asked`: the revision when an import asked for it."""

    id: str
    revision: int
    item: Item | None
    asked: int | None = None


class ApiWrites(Protocol):
    """Where the API's writes of the active index are read from, a page at a time: the open index itself, or a running server."""

    def read(self, since: int) -> AsyncGenerator[list[ApiItem]]: ...


@dataclass
class KnownWrites:
    """What is known of the API's writes: the newest revision of each id, and how many are items. The others are tombstones."""

    revisions: dict[str, int] = field(default_factory=dict)
    _stored: set[str] = field(default_factory=set)

    @classmethod
    async def of(cls, pages: AsyncGenerator[list[ApiItem]]) -> Self:
        written = cls()
        async for page in pages:
            written.add(page)
        return written

    def add(self, entries: Iterable[ApiItem]) -> None:
        for entry in entries:
            self.revisions[entry.id] = entry.revision
            (self._stored.discard if entry.item is None else self._stored.add)(entry.id)

    def unknown(self, entries: Iterable[ApiItem]) -> list[ApiItem]:
        return [entry for entry in entries if self.revisions.get(entry.id) != entry.revision]

    @property
    def items(self) -> int:
        return len(self._stored)

    @property
    def newest(self) -> int:
        return max(self.revisions.values(), default=0)

    @property
    def stable_revision(self) -> int:
        return stable_revision(self.newest)


class IndexWrites:
    """The API's writes, read from the open index itself (no server is running)."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        after: str | None = None
        while True:
            page, after = await self.page(since, after, _PAGE)
            yield page
            if after is None:
                return

    async def page(self, since: int, after: str | None, limit: int) -> tuple[list[ApiItem], str | None]:
        """The writes from the cursor `after` on, and the cursor of the next page."""
        page, following = await self._index.scroll(Scroll(limit=limit, after=after, since=since, origin="api", deleted=True))
        return [_api_item(hit) for hit in page], following


def _api_item(hit: Hit) -> ApiItem:
    item = None if hit.payload.get("deleted") else Item.model_validate(hit.payload["item"])
    return ApiItem(hit.id, hit.payload["revision"], item, hit.payload.get("asked"))


def stable_revision(newest: int) -> int:
    """The newest revision at or below which no further write can arrive, where `newest` is the newest that arrived."""
    return max(0, newest - _OVERLAP)
