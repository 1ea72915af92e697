"""Other attributes for an index, without its encoder: the current version is copied with its vectors, under the new declaration.

What is written meanwhile goes to the version that is open, and is carried over when the copy is followed (`index.active`). Until the switch
nothing changes, and the version before stays for a rollback. Does not open versions and does not follow.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from matinee.errors import CatalogueConflictError, IndexLockedError
from matinee.filters.attributes import Attribute
from matinee.index.api_writes import stable_revision
from matinee.index.points import BATCH, write_points
from matinee.index.protocols import Index, IndexStore, closing
from matinee.index.types import Manifest, Scroll, new_version


async def redeclare(
    store: IndexStore,
    index: Index,
    attributes: Mapping[str, Attribute],
    *,
    keep: int,
    before_switch: Callable[[], Awaitable[None]],
) -> Manifest:
    """A new current version: the items of `index`, which is the open current one, with these attributes.

    Raises `IndexLockedError` while a build runs, and `CatalogueConflictError` where one has replaced `index`. The newest `keep` versions
    stay.
    """
    async with store.lease() as held:
        await _require_current(store, index)
        manifest = index.manifest.model_copy(
            update={
                "version": new_version(index.manifest.fingerprint, index.manifest.recipe),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "revision": stable_revision(await index.max_revision()),
                "attributes": dict(attributes),
            }
        )
        async with closing(await store.create(manifest)) as copy:
            await _copy(index, copy)
            manifest = manifest.model_copy(update={"count": await copy.count()})
        await store.finish(manifest)
        await held()
        await _require_current(store, index)
        await before_switch()
        await store.switch(manifest.version)
        # Another build may have taken the lease over: it prunes at its own end.
        with suppress(IndexLockedError):
            await held()
            await store.prune(keep)
    return manifest


async def _require_current(store: IndexStore, index: Index) -> None:
    current = await store.current()
    if current is None or current.version != index.manifest.version:
        raise CatalogueConflictError(f"the index of {index.manifest.catalogue!r} has just been replaced: send the change again")


async def _copy(index: Index, copy: Index) -> None:
    """Every point with its vectors, tombstones included; an index makes the attributes that it declares itself."""
    after: str | None = None
    while True:
        page, after = await index.scroll(Scroll(limit=BATCH, after=after, deleted=True))
        await write_points(copy, await index.points([hit.id for hit in page]))
        if after is None:
            return
