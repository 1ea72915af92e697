"""What commands do with the catalogues of this machine or of a Qdrant server, without a server of ours: list, register and delete them.

`delete_catalogue` is what a server does too. Does not open an index.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from matinee.errors import CatalogueConflictError, IndexLockedError, MatineeError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute, Attributes
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_registry, open_store
from matinee.index.protocols import IndexStore, closing
from matinee.index.redeclare import redeclare
from matinee.index.registry import CatalogueChanges, CatalogueRecord, CatalogueRegistry, absent, check_new, new_record, shares
from matinee.index.types import Manifest
from matinee.settings.tree import Settings


@dataclass(frozen=True)
class ClosedCatalogue:
    """A catalogue as it lies in the store. `record` is None for the default one, `manifest` where there is no index yet."""

    name: str
    record: CatalogueRecord | None
    manifest: Manifest | None
    trouble: str | None = None
    building: bool = False


async def find_record(settings: Settings) -> CatalogueRecord | None:
    """What the registry says of the catalogue of `settings`."""
    async with closing(open_registry(settings)) as registry:
        return (await registry.records()).get(settings.catalogue)


async def own_settings(settings: Settings) -> Settings:
    """`settings` as their catalogue has them: its recipe and settings of ranking, and where its index lies."""
    record = await find_record(settings)
    return settings if record is None else record.settings(settings)


async def has_index(settings: Settings) -> bool:
    """Whether the catalogue of `settings` (`own_settings`) has an index, open elsewhere or not."""
    async with closing(open_store(settings)) as store:
        return await store.current() is not None


async def require_known(settings: Settings, default: str) -> None:
    """Raises `CatalogueAbsentError` where neither the registry nor the store knows the catalogue of `settings`; it names others."""
    async with closing(open_registry(settings)) as registry:
        records = await registry.records()
    if settings.catalogue in records or await has_index(settings):
        return
    known = {name for name, record in records.items() if record.state == "ready"}
    if settings.catalogue != default and await has_index(settings.model_copy(update={"catalogue": default})):
        known.add(default)
    raise absent(settings.catalogue, known)


async def list_catalogues(settings: Settings) -> list[ClosedCatalogue]:
    """All catalogues, the default one first."""
    async with closing(open_registry(settings)) as registry:
        records = await registry.records()
    others = [record for name, record in sorted(records.items()) if name != settings.catalogue]
    return [await _describe_closed(settings, None), *[await _describe_closed(record.settings(settings), record) for record in others]]


async def _describe_closed(settings: Settings, record: CatalogueRecord | None) -> ClosedCatalogue:
    async with closing(open_store(settings)) as store:
        try:
            return ClosedCatalogue(settings.catalogue, record, await store.current(), building=await store.lease_mark() is not None)
        except MatineeError as error:
            return ClosedCatalogue(settings.catalogue, record, None, str(error))


async def create_catalogue(settings: Settings, record: CatalogueRecord) -> None:
    """Add a catalogue to the registry. It has no index before its first ingest."""
    most = settings.index.catalogues.most
    async with closing(open_registry(settings)) as registry:
        check_new(record, settings.catalogue, await registry.records(), most)
        await registry.add(await dated_record(settings, record, open_store), most)


async def declared_attributes(settings: Settings, name: str) -> Attributes:
    """What the items of a catalogue can be filtered by now."""
    record = await find_record(settings.model_copy(update={"catalogue": name}))
    if record is None and name != settings.catalogue:
        await require_deletable(settings, name)
    own = settings if record is None else record.settings(settings)
    async with closing(open_store(own)) as store:
        manifest = await store.current()
    if manifest is not None:
        return manifest.declared
    return (record and record.attributes) or DEFAULT_ATTRIBUTES


async def change_catalogue(settings: Settings, name: str, changes: CatalogueChanges) -> None:
    """Change a catalogue that no server serves. Opens its index for other attributes: raises `IndexLockedError` where a process has it."""
    async with closing(open_registry(settings)) as registry:
        records = await registry.records()
        if name == settings.catalogue:
            changes.require_default()
            await _redeclare(settings, None, changes, _nothing_to_note)
            return
        if name not in records:
            raise absent(name, records)
        require_usable(records[name])

        async def note(declared: dict[str, Attribute] | None) -> None:
            own: dict[str, object] = {} if declared is None else {"attributes": declared}
            await registry.update(name, lambda record: changes.apply_to(record).model_copy(update=own))

        await _redeclare(records[name].settings(settings), records[name], changes, note)


async def _nothing_to_note(declared: dict[str, Attribute] | None) -> None:
    """The default catalogue has no record."""


async def _redeclare(
    settings: Settings,
    record: CatalogueRecord | None,
    changes: CatalogueChanges,
    note: Callable[[dict[str, Attribute] | None], Awaitable[None]],
) -> None:
    if changes.attributes is None:
        await note(None)
        return
    async with closing(open_store(settings)) as store, closing(ActiveIndex(store)) as active:
        await active.refresh()
        if active.manifest is None:
            if record is None:
                active.get()
            await note(changes.declare_on((record and record.attributes) or DEFAULT_ATTRIBUTES))
        elif (declared := changes.declare_on(active.manifest.declared)) is None:
            await note(None)
        else:
            keep = settings.index.keep_versions
            await redeclare(store, active.get(), declared, keep=keep, before_switch=lambda: note(declared))
            # What was written since the copy began is carried over.
            await active.refresh()


def require_usable(record: CatalogueRecord) -> None:
    """Raises `CatalogueConflictError` where the catalogue is being deleted: nobody would see what is built now."""
    if record.state == "deleting":
        raise CatalogueConflictError(f"the catalogue {record.name!r} is being deleted: wait for its end, or delete it once more")


async def dated_record(settings: Settings, record: CatalogueRecord, store_of: Callable[[Settings], IndexStore]) -> CatalogueRecord:
    """A record of now. It shares collections, unless the catalogue has an index of its own already."""
    if not shares(settings):
        return new_record(record)
    async with closing(store_of(record.model_copy(update={"shared": False}).settings(settings))) as store:
        return new_record(record, shared=await store.current() is None)


async def check_creatable(settings: Settings, default: str) -> None:
    """Raises where an ingest can't make the catalogue of `settings`, which the registry does not have yet."""
    async with closing(open_registry(settings)) as registry:
        if settings.catalogue != default:
            check_new(CatalogueRecord(name=settings.catalogue), default, await registry.records(), settings.index.catalogues.most)


async def register(settings: Settings, record: CatalogueRecord) -> None:
    """Add a catalogue that has an index already, where the registry has none of its name."""
    async with closing(open_registry(settings)) as registry:
        if record.name not in await registry.records():
            shared = settings.index.collection == "shared"
            await registry.add(new_record(record, shared=shared), settings.index.catalogues.most)


async def check_kept(settings: Settings) -> None:
    """Raises where the catalogue was deleted while its index was built: then nobody serves that index, and it is removed."""
    if await find_record(settings) is None:
        async with closing(open_store(settings)) as store:
            await store.destroy()
        raise CatalogueConflictError(
            f"the catalogue {settings.catalogue!r} was deleted while this ingest ran: run it again to make it anew"
        )


async def require_deletable(settings: Settings, name: str) -> None:
    """Raises where there is no such catalogue, or where it is the default one."""
    async with closing(open_registry(settings)) as registry:
        _deletable(settings, name, await registry.records())


async def remove_catalogue(settings: Settings, name: str) -> None:
    """Delete a catalogue with all its items. Raises where a process has it open."""
    async with closing(open_registry(settings)) as registry:
        await delete_catalogue(registry, settings, name, open_store)


def _deletable(settings: Settings, name: str, records: Mapping[str, CatalogueRecord]) -> CatalogueRecord:
    if name == settings.catalogue:
        raise CatalogueConflictError(f"the catalogue {name!r} is the default one: it can't be deleted")
    if name not in records:
        raise absent(name, records)
    return records[name]


async def _nothing_open() -> None:
    """Commands have no catalogue open."""


async def delete_catalogue(
    registry: CatalogueRegistry,
    settings: Settings,
    name: str,
    store_of: Callable[[Settings], IndexStore],
    close: Callable[[], Awaitable[None]] = _nothing_open,
) -> None:
    """Delete a catalogue: first it is marked, so that nobody opens it; then `close` ends what is open; then its data goes, then its record.

    What a kill leaves, the next call deletes. Raises `CatalogueConflictError` for the default catalogue, and while it is built or open
    elsewhere: then nothing is deleted.
    """
    record = _deletable(settings, name, await registry.records())
    await registry.update(name, lambda record: record.model_copy(update={"state": "deleting"}))
    await close()
    async with closing(store_of(record.settings(settings))) as store:
        try:
            await store.destroy()
        except IndexLockedError as error:
            await registry.update(name, lambda record: record.model_copy(update={"state": "ready"}))
            raise CatalogueConflictError(f"the catalogue {name!r} can't be deleted now: {error}") from error
    await registry.remove(name)
