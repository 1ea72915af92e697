"""What was written through the API, read from whoever has the index: a build keeps it (`matinee.index.api_writes.ApiWrites`).

Does not write, and does not know what is built.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from matinee.client.http import Client
from matinee.client.items import read_writes
from matinee.client.models import RetryPolicy, connect, in_catalogue
from matinee.errors import IndexLockedError
from matinee.index.api_writes import ApiItem, IndexWrites
from matinee.index.protocols import Index, IndexStore
from matinee.settings.tree import Settings

_PAGE = 2_000
_LOCKED_S = 60
"""For a server that starts while a build is under way: it holds the index before it answers."""
_HELD_S = 1.0
"""From one page to the next the index stays open so long: to open a large one takes seconds. A server that starts needs it sooner than
a page is encoded."""


@dataclass(frozen=True)
class ServerConnection:
    """How the server that holds the index is asked: `server` where it was named, else the one that runs here, if any."""

    server: Client | None
    key: str | None
    patience: RetryPolicy


class _HeldIndex:
    """The current version, opened when a page is read, and given back when none is read for `_HELD_S` seconds, or at the end."""

    def __init__(self, store: IndexStore) -> None:
        self._store = store
        self._index: Index | None = None
        self._needed = asyncio.Event()
        self._waiting: asyncio.Task[None] | None = None

    async def page(self, since: int, after: str | None) -> tuple[list[ApiItem], str | None]:
        """The writes of the version from the cursor on, and the next cursor; none where there is no version."""
        await self._stop_waiting()
        if self._index is None:
            current = await self._store.current()
            if current is None:
                return [], None
            self._index = await self._store.open(current.version)
        page = await IndexWrites(self._index).page(since, after, _PAGE)
        self._needed.clear()
        self._waiting = asyncio.create_task(self._give_back())
        return page

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stop_waiting()
        await self._close()

    async def _give_back(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._needed.wait(), _HELD_S)
            return
        await self._close()

    async def _stop_waiting(self) -> None:
        """Not by a cancellation: it may be closing the index."""
        if self._waiting is not None:
            self._needed.set()
            await self._waiting
            self._waiting = None

    async def _close(self) -> None:
        if self._index is not None:
            index, self._index = self._index, None
            await index.close()


class CurrentApiWrites:
    """The API's writes, from whoever has the index when they are read: the server, else this process, a page at a time."""

    def __init__(self, settings: Settings, store: IndexStore, connection: ServerConnection) -> None:
        self._settings, self._store, self._connection = settings, store, connection
        self._attempts = 1

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        after: str | None = None
        async with _HeldIndex(self._store) as held:
            while True:
                unlocked = AsyncRetrying(
                    retry=retry_if_exception_type(IndexLockedError),
                    wait=wait_fixed(1),
                    stop=stop_after_attempt(self._attempts),
                    reraise=True,
                )
                page: list[ApiItem]
                page, after = await unlocked(self._page, held, since, after)
                self._attempts = 1 + _LOCKED_S
                yield page
                if after is None:
                    return

    async def _page(self, held: _HeldIndex, since: int, after: str | None) -> tuple[list[ApiItem], str | None]:
        server = self._holder()
        if server is None:
            return await held.page(since, after)
        what = f"reading what was written through {server.url}"
        return self._connection.patience(what, lambda: read_writes(server, since, after))

    def _holder(self) -> Client | None:
        """The server that answers from this catalogue's index."""
        if self._connection.server is not None:
            named = in_catalogue(self._connection.server, self._settings, self._connection.patience)
            connect(named, self._settings, self._connection.patience)
            return named
        server = Client.find_running(self._settings, key=self._connection.key)
        return None if server is None else server.of(self._settings.catalogue)
