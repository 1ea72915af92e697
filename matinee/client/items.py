"""Items of a running server: read, write, change and delete them, one, many or as an import. Does not wait for imports."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from matinee.client import calls
from matinee.client.calls import Body, Call
from matinee.client.http import Client, ServerError
from matinee.index.imports import ImportState, RejectedLine, Uploaded
from matinee.index.progress import BuildState
from matinee.items import Item

if TYPE_CHECKING:
    from matinee.index.api_writes import ApiItem

_PAGE = 1000
SLICE = 1000
"""Lines of one upload: small enough for a proxy that holds a whole body in memory."""


class Stored(BaseModel):
    """An item as the index holds it."""

    id: str
    item: Item
    revision: int
    origin: Literal["file", "api"] | None = None
    enriched: bool = False
    description: str | None = None


class Deleted(BaseModel):
    """What was deleted, or would be."""

    count: int
    ids: list[str]
    unknown: list[str]
    more: bool
    dry_run: bool


class _Imports(BaseModel):
    imports: list[ImportState]
    build: BuildState | None = None


class Items:
    """The items of `server`. Every call raises `ServerError` where the server refuses it or can't answer."""

    def __init__(self, server: Client) -> None:
        self._server = server

    def get(self, id: str) -> Stored:
        return Stored.model_validate(self._server.send(calls.item(id)))

    def put(self, lines: Iterable[bytes]) -> Uploaded:
        """Add or replace items, a line of JSON each, some at a time; returns when all are written."""
        total, before = Uploaded(lines=0, written=0, rejected=0, rejects=()), 0
        for part in _slices(lines):
            try:
                done = Uploaded.model_validate(self._server.send(Call("POST", "/v1/items:batch", lines=part)))
            except ServerError as error:
                if before == 0:
                    raise
                said = f"the first {before:,} lines are done. Of those after them, counted from 1 again: {error}"
                raise ServerError(said, error.code, status=error.status) from error
            rejects = (*total.rejects, *(RejectedLine(line=before + one.line, reason=one.reason) for one in done.rejects))
            total = Uploaded(
                lines=total.lines + done.lines,
                written=total.written + done.written,
                rejected=total.rejected + done.rejected,
                rejects=rejects[:SLICE],
            )
            before += len(part)
        return total

    def patch(self, id: str, patch: Body) -> Stored:
        """Change facts of an item by a JSON merge patch."""
        return Stored.model_validate(self._server.send(Call("PATCH", "/v1/item", {"id": id}, patch)))

    def delete(self, ids: Sequence[str], *, dry_run: bool = False) -> Deleted:
        body = {"ids": [*ids], "dry_run": dry_run}
        return Deleted.model_validate(self._server.send(Call("POST", "/v1/items:delete", body=body)))

    def delete_matching(self, filter: Body, *, dry_run: bool = False) -> Deleted:
        """Delete the items that pass `filter`, a request for each 1,000. With `dry_run` only the first 1,000 are looked up."""
        total: Deleted | None = None
        while total is None or (total.more and not dry_run):
            done = Deleted.model_validate(self._server.send(Call("POST", "/v1/items:delete", body={"filter": filter, "dry_run": dry_run})))
            ids = done.ids if total is None else [*total.ids, *done.ids]
            total = done.model_copy(update={"ids": ids, "count": len(ids)})
        return total

    def start_import(self, lines: Iterable[bytes]) -> ImportState:
        """Send all lines, to be written in the background."""
        return ImportState.model_validate(self._server.send(Call("POST", "/v1/imports", lines=lines)))

    def start_remote_import(self, uri: str) -> ImportState:
        """Let the server read the lines at `uri`, which takes a key with the scope admin and a server that allows it."""
        return ImportState.model_validate(self._server.send(Call("POST", "/v1/imports", body={"uri": uri})))

    def imports(self) -> list[ImportState]:
        return _Imports.model_validate(self._server.send(Call("GET", "/v1/imports"))).imports

    def build(self) -> BuildState | None:
        """The ingest that builds a new version of the catalogue now."""
        return _Imports.model_validate(self._server.send(Call("GET", "/v1/imports"))).build

    def import_state(self, id: str) -> ImportState:
        return ImportState.model_validate(self._server.send(Call("GET", f"/v1/imports/{id}")))

    def cancel_import(self, id: str) -> ImportState:
        return ImportState.model_validate(self._server.send(Call("DELETE", f"/v1/imports/{id}")))


def _slices(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    for line in lines:
        part.append(line)
        if len(part) == SLICE:
            yield part
            part = []
    if part:
        yield part


def read_writes(server: Client, since: int, after: str | None = None) -> "tuple[list[ApiItem], str | None]":
    """A page of the API's writes of the active index, from the server that holds it, and the cursor of the next; none without an index.

    Raises `ServerError` where it has one that it can't read now.
    """
    # Brings the embedder's libraries along, 180 MB that whoever only asks does without.
    from matinee.index.api_writes import ApiItem

    try:
        page = server.send(calls.items(_PAGE, cursor=after, since=since, origin="api", deleted=True))
    except ServerError as error:
        if error.code == "index_absent":
            return [], None
        raise
    changed = page["items"]
    entries = [
        ApiItem(e["id"], e["revision"], None if e.get("deleted") else Item.model_validate(e["item"]), e.get("asked")) for e in changed
    ]
    return entries, page["cursor"]
