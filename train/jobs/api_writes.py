"""What was written through the API, read from whoever has the index: a build keeps it (`matinee.index.api_writes.ApiWrites`).

Does not write, and does not know what is built.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from matinee.client.http import Client
from matinee.client.items import read_writes
from matinee.client.models import RetryPolicy, connect, in_catalogue
from matinee.errors import IndexLockedError
from matinee.index.api_writes import ApiItem, IndexWrites
from matinee.index.protocols import IndexStore, closing
from matinee.settings.tree import Settings

_PAGE = 2_000
_LOCKED_S = 60
"""For a server that starts while a build is under way: it holds the index before it answers."""


@dataclass(frozen=True)
class ServerConnection:
    """How the server that holds the index is asked: `server` where it was named, else the one that runs here, if any."""

    server: Client | None
    key: str | None
    patience: RetryPolicy


class CurrentApiWrites:
    """The API's writes, from whoever has the index when they are read: the server, else this process, a page at a time."""

    def __init__(self, settings: Settings, store: IndexStore, connection: ServerConnection) -> None:
        self._settings, self._store, self._connection = settings, store, connection
        self._attempts = 1

    async def read(self, since: int) -> AsyncGenerator[list[ApiItem]]:
        after: str | None = None
        while True:
            held = AsyncRetrying(
                retry=retry_if_exception_type(IndexLockedError), wait=wait_fixed(1), stop=stop_after_attempt(self._attempts), reraise=True
            )
            page: list[ApiItem]
            page, after = await held(self._page, since, after)
            self._attempts = 1 + _LOCKED_S
            yield page
            if after is None:
                return

    async def _page(self, since: int, after: str | None) -> tuple[list[ApiItem], str | None]:
        server = self._holder()
        if server is not None:
            what = f"reading what was written through {server.url}"
            return self._connection.patience(what, lambda: read_writes(server, since, after))
        current = await self._store.current()
        if current is None:
            return [], None
        async with closing(await self._store.open(current.version)) as index:
            return await IndexWrites(index).page(since, after, _PAGE)

    def _holder(self) -> Client | None:
        """The server that answers from this catalogue's index."""
        if self._connection.server is not None:
            named = in_catalogue(self._connection.server, self._settings, self._connection.patience)
            connect(named, self._settings, self._connection.patience)
            return named
        server = Client.find_running(self._settings, key=self._connection.key)
        return None if server is None else server.of(self._settings.catalogue)
