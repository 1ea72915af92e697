"""What an engine offers: an open index version (`Index`) and the versions of one catalogue (`IndexStore`).

Two engines implement both: `edge` and `qdrant`.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

from matinee.filters import ItemFilter
from matinee.index.imports import ImportStore
from matinee.index.lease import Held
from matinee.index.progress import BuildProgress
from matinee.index.types import FacetCount, Hit, Manifest, Point, Scroll, Search

Result = TypeVar("Result")


class Closable(Protocol):
    """What has to be closed: an index, a store, a registry."""

    async def close(self) -> None: ...


Opened = TypeVar("Opened", bound=Closable)


@asynccontextmanager
async def closing(opened: Opened) -> AsyncIterator[Opened]:
    """`opened`, which is closed at the end of the `async with`."""
    try:
        yield opened
    finally:
        await opened.close()


class Index(Protocol):
    """One open version. All calls are coroutines, so that neither engine blocks an event loop.

    Raises `IndexUnavailableError` when the engine can't answer in time, `IndexLockedError` when another process holds the path.
    """

    manifest: Manifest

    @property
    def approximate(self) -> bool:
        """Whether a search may be answered from a graph of vectors, so that `exact` can make a difference."""

    @property
    def searches_by_id(self) -> bool:
        """Whether it takes a `StoredQuery`."""

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """The hits of each search, best first; deleted points never appear."""
        ...

    async def retrieve(self, ids: Sequence[str], *, vectors: bool = False) -> list[Hit | None]:
        """The stored points, tombstones included, in the order of `ids`; None where there is none."""
        ...

    async def present(self, ids: Sequence[str]) -> set[str]:
        """The ids that belong to a point that is not deleted."""
        ...

    async def scroll(self, scroll: Scroll) -> tuple[list[Hit], str | None]:
        """A page of points by id, and the cursor of the next page (None at the end)."""
        ...

    async def points(self, ids: Sequence[str]) -> list[Point]:
        """Whole points with all their vectors, to be copied into another version; unknown ids are left out."""
        ...

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same id; durable when it returns."""
        ...

    async def count(self, filter: ItemFilter = ItemFilter()) -> int:
        """How many points pass the filter and are not deleted, exactly."""
        ...

    async def facets(self, key: str, *, filter: ItemFilter = ItemFilter(), limit: int = 50, exact: bool = True) -> list[FacetCount]:
        """The most frequent values of an attribute (keyword, integer, boolean) with their counts, deleted points left out.

        Unless `exact`, the engine may estimate a count, which is quicker.
        """
        ...

    async def max_revision(self) -> int:
        """The highest revision of any point, 0 when empty."""
        ...

    async def together(self, work: Callable[[], Coroutine[object, None, Result]], *, brief: bool = False) -> Result:
        """The result of `work()`, which awaits only this index. An engine with its own thread runs all of it in one hop.

        `brief`: it is little work. Where it took next to no time lately, it needs no hop.
        """
        ...

    def check_health(self, hang_s: float) -> None:
        """Raises `RuntimeError` where a call has run for more than `hang_s` seconds, and no deadline can end it."""
        ...

    async def close(self) -> None: ...


class IndexStore(Protocol):
    """The versions of one catalogue."""

    async def versions(self) -> list[Manifest]:
        """All finished versions, newest first."""
        ...

    async def current(self) -> Manifest | None: ...

    async def previous(self) -> Manifest | None:
        """The version that `rollback` would go back to."""
        ...

    async def create(self, manifest: Manifest) -> Index:
        """A new, empty, writable version aside; the leftovers of an earlier unfinished build of that name are removed."""
        ...

    async def resume(self, manifest: Manifest) -> Index:
        """A version that `create` began and nobody finished, for another process to write to; `IndexAbsentError` where there is none."""
        ...

    async def finish(self, manifest: Manifest) -> None:
        """Complete the version's own indexes, and mark the build as complete. It must have been closed (embedded engine)."""
        ...

    async def open(self, version: str) -> Index:
        """Raises `IndexAbsentError` for a version that does not exist or is unfinished."""
        ...

    def imports(self) -> ImportStore:
        """The import jobs of the catalogue. They belong to no version."""
        ...

    def lease(self) -> AbstractAsyncContextManager[Held]:
        """The right to build and to prune, held until the end of the `async with`; yields a check that it is held still.

        Raises `IndexLockedError` where another process has it.
        """
        ...

    async def lease_mark(self) -> str | None:
        """A text that changes while a build that lives holds the lease, at least once in `lease.EXPIRY_S`; None where none holds it."""
        ...

    async def note_build(self, progress: BuildProgress) -> None:
        """Note how far the build is that holds the lease. The note ends with the lease."""
        ...

    async def build_progress(self) -> BuildProgress | None:
        """What the build that holds the lease noted last; None where there is none, or where it has noted nothing."""
        ...

    async def switch(self, version: str) -> None:
        """Make a finished version current in one step; the one before is kept for rollback."""
        ...

    async def rollback(self) -> Manifest:
        """Make the previous version current again; raises `IndexAbsentError` when there is none."""
        ...

    async def prune(self, keep: int) -> list[str]:
        """Delete unfinished builds and all but the newest `keep` versions; the current and the previous one always stay.

        The caller holds the lease.
        """
        ...

    async def destroy(self) -> None:
        """Delete the catalogue: all versions, marks and imports. What a kill leaves of it, the next call deletes.

        Raises `IndexLockedError` while a build runs, or while another process has a version open.
        """
        ...

    async def close(self) -> None: ...
