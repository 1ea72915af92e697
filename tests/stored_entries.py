"""All items of a running server, as it stores them."""

from collections.abc import Iterator

from matinee.client import calls
from matinee.client.calls import StoredEntry
from matinee.client.http import Client


def stored_entries(server: Client) -> Iterator[StoredEntry]:
    cursor: str | None = None
    while True:
        page = server.send(calls.items(1000, cursor=cursor))
        yield from page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return
