"""A source compared with a server's catalogue, item by item: what is new or different is spooled, what is gone is named.

In memory are two digests of 16 bytes an item. The server is listed before the source is read: what came to both in between is not taken
for gone. Writes nothing to the server.
"""

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from matinee.client import calls
from matinee.client.http import Client
from matinee.client.models import RetryPolicy
from matinee.items import Item
from train.syncing.source import Source

PAGE = 1000
SPOOL_BYTES = 64 << 20
"""Of one import: less than `serving.imports.max_bytes`, and little to send again where a connection breaks."""


def list_server(server: Client, patience: RetryPolicy, seen: Callable[[int], None]) -> dict[bytes, bytes]:
    """The digest of every item that the server has, by index id."""
    digests: dict[bytes, bytes] = {}
    cursor: str | None = None
    while True:
        page = patience("listing the catalogue", partial(server.send, calls.items(PAGE, cursor=cursor)))
        for entry in page["items"]:
            digests[uuid.UUID(entry["id"]).bytes] = digest(Item.model_validate(entry["item"]))
        seen(len(digests))
        cursor = page["cursor"]
        if cursor is None:
            return digests


def digest(item: Item) -> bytes:
    return hashlib.blake2b(orjson.dumps(item.facts(), option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


@dataclass
class Spool:
    """Lines of JSON in files of at most about `SPOOL_BYTES`, as one import takes them."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    lines: int = 0
    _open: Any = None

    def add(self, item: Item) -> None:
        if self._open is None or self._open.tell() > SPOOL_BYTES:
            self.close()
            self.files.append(self.folder / f"{len(self.files)}.jsonl")
            self._open = self.files[-1].open("wb")
        self._open.write(orjson.dumps(item.facts(), option=orjson.OPT_APPEND_NEWLINE))
        self.lines += 1

    def items(self) -> Iterator[Item]:
        """What was added, once it is closed."""
        for path in self.files:
            with path.open("rb") as lines:
                yield from (Item.model_validate_json(line) for line in lines)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


@dataclass
class Changes:
    """What has to happen for the server to have what the source has."""

    spool: Spool
    unchanged: int = 0
    gone: set[bytes] = field(default_factory=set)
    deleted: set[bytes] = field(default_factory=set)
    """Marked as deleted by the source, and there (or not known to be gone)."""


@contextmanager
def spool() -> Iterator[Changes]:
    """Changes, whose lines lie in a temporary folder until the end of the `with`."""
    with tempfile.TemporaryDirectory(prefix="matinee-sync-") as folder:
        changes = Changes(Spool(Path(folder)))
        try:
            yield changes
        finally:
            changes.spool.close()


def compare(source: Source, catalogue: str, server: dict[bytes, bytes] | None, changes: Changes) -> None:
    """Fill `changes`, from the source's items against those of the server; without a server's listing all items count as changed.

    Raises `SourceError` where the source can't be read to its end.
    """
    seen: dict[bytes, bytes] = {}
    for uid, item in source.items(catalogue):
        key, own = uid.bytes, digest(item)
        if (before := seen.setdefault(key, own)) != own:
            source.report.reject(f"{item.title!r} has the id of an item in another file, but other facts; the first was kept", str(uid))
        elif before is not own:
            continue
        elif server is not None and server.get(key) == own:
            changes.unchanged += 1
        else:
            changes.spool.add(item)
    source.report.items = len(seen)
    changes.spool.close()
    changes.deleted = source.deleted() if server is None else source.deleted() & server.keys()
    if server is not None:
        changes.gone = server.keys() - seen.keys() - source.report.rejected_uids - changes.deleted


def ids_of(uids: Iterable[bytes]) -> list[str]:
    return [str(uuid.UUID(bytes=uid)) for uid in sorted(uids)]
