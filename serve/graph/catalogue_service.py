"""What is asked about the catalogues of one Retriever: which there are, and to create, change and delete them.

Each of its methods answers a `messages.CataloguesMessage`. Which catalogues are open is `serve.graph.catalogues`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matinee.errors import CatalogueConflictError, IndexAbsentError, IndexLockedError, MatineeError
from matinee.filters.attributes import DEFAULT_ATTRIBUTES, Attribute
from matinee.index.build import build_empty, new_manifest
from matinee.index.catalogues import dated_record, delete_catalogue
from matinee.index.lease import BuildWatch
from matinee.index.protocols import IndexStore, closing
from matinee.index.registry import (
    CatalogueChanges,
    CatalogueRecord,
    CatalogueRegistry,
    CatalogueReport,
    CatalogueState,
    absent,
    check_new,
    report,
)
from matinee.index.types import MADE_EMPTY, Manifest
from matinee.settings.tree import Settings
from serve.graph.catalogues import Catalogues

log = logging.getLogger(__name__)

CHANGE_S = 3.0
"""How long whoever changes attributes waits for the copy of the index; a longer one goes on by itself."""


class CatalogueService:
    """The registry of a Retriever, and its `catalogues`. `store_of` opens the store of one that is closed."""

    def __init__(
        self, settings: Settings, catalogues: Catalogues, registry: CatalogueRegistry, store_of: Callable[[Settings], IndexStore]
    ) -> None:
        self._settings = settings
        self._catalogues = catalogues
        self._registry = registry
        self._store_of = store_of
        self._builds = BuildWatch()
        self._changing: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, str] = {}

    async def records(self) -> dict[str, CatalogueRecord]:
        """Those beside the default one, by their names."""
        return await self._catalogues.records()

    async def entries(self, names: tuple[str, ...] | None) -> list[CatalogueReport]:
        """All catalogues, or those of `names`, the default one first."""
        records = await self._catalogues.records()
        shown = [record for name, record in sorted(records.items()) if names is None or name in names]
        first = [] if names is not None and self._settings.catalogue not in names else [None]
        return await asyncio.gather(*(self._entry(record) for record in (*first, *shown)))

    async def _entry(self, record: CatalogueRecord | None) -> CatalogueReport:
        name = self._settings.catalogue if record is None else record.name
        count = None if record is None else record.items
        manifest: Manifest | None = None
        building = name in self._changing
        trouble = self._failed.get(name)
        try:
            if record is not None and record.state == "deleting":
                return report(name, record, "deleting")
            catalogue = await self._catalogues.get_open(name)
            is_open = catalogue is not None
            if catalogue is not None:
                status = await catalogue.service.status()
                manifest, building = status.manifest, building or status.building
                if manifest is None and status.trouble:
                    return report(name, record, "unavailable", open=True, building=building, trouble=status.trouble)
                count = None if manifest is None else status.items
            elif record is not None:
                async with closing(self._store_of(record.settings(self._settings))) as store:
                    manifest, mark = await asyncio.gather(store.current(), store.lease_mark())
                building = self._builds.seen(name, mark) or building
                count = count if count is not None or manifest is None else manifest.count
        except MatineeError as error:
            log.warning("catalogue %s: %s", name, error)
            return report(name, record, "unavailable", trouble=str(error))
        state: CatalogueState = "ready" if manifest is not None else "building" if building else "empty"
        items = 0 if manifest is None else count
        return report(name, record, state, manifest, items=items, open=is_open, building=building, trouble=trouble)

    async def busy(self) -> list[str]:
        """The catalogues beside the default one that have background work: those that are open, that have imports which are not over, or
        items that may still have to be described.

        One that is closed is looked into once for imports: whoever begins one opens it.
        """
        busy = self._catalogues.opened
        for name, record in (await self._catalogues.records()).items():
            if name in self._catalogues.opened or record.state != "ready":
                continue
            if record.pending:
                busy.append(name)
                continue
            if self._catalogues.without_imports.get(name) == record.created:
                continue
            async with closing(self._store_of(record.settings(self._settings))) as store:
                if not all(job.is_over for job in await store.imports().jobs()):
                    busy.append(name)
                else:
                    self._catalogues.without_imports[name] = record.created
        return busy

    async def create(self, record: CatalogueRecord, fingerprint: str, dimension: int) -> CatalogueReport:
        """Add a catalogue with an empty index of this encoder. One that an ingest has built before keeps its versions."""
        return await self._catalogues.finish(self._create(record, fingerprint, dimension))

    async def _create(self, record: CatalogueRecord, fingerprint: str, dimension: int) -> CatalogueReport:
        most = self._settings.index.catalogues.most
        check_new(record, self._settings.catalogue, await self._registry.records(), most)
        record = await dated_record(self._settings, record, self._store_of)
        await self._registry.add(record, most)
        settings = record.settings(self._settings)
        try:
            async with closing(self._store_of(settings)) as store:
                index = settings.index
                manifest = new_manifest(record.name, fingerprint, dimension, index.recipe, index.facts, MADE_EMPTY, record.attributes)
                with _conflict_while_built(record.name):
                    await build_empty(store, manifest)
        except BaseException:
            await self._registry.remove(record.name)
            raise
        finally:
            self._catalogues.reread()
        await self._catalogues.records()
        return await self._entry(record)

    async def create_index(self, name: str, attributes: dict[str, Attribute] | None, fingerprint: str, dimension: int) -> CatalogueReport:
        """Make the first, empty index of a catalogue that has none, for an encoder."""
        return await self._catalogues.finish(self._create_index(name, attributes, fingerprint, dimension))

    async def _create_index(self, name: str, attributes: dict[str, Attribute] | None, fingerprint: str, dimension: int) -> CatalogueReport:
        record = None if name == self._settings.catalogue else await self._catalogues.find(name)
        settings = self._settings if record is None else record.settings(self._settings)
        declared = (record and record.attributes) or attributes
        index = settings.index
        manifest = new_manifest(name, fingerprint, dimension, index.recipe, index.facts, MADE_EMPTY, declared)
        async with self._catalogues.use(name) as catalogue:
            with _conflict_while_built(name):
                made = await catalogue.create_index(manifest)
        if not made:
            raise CatalogueConflictError(f"the catalogue {name!r} has an index already: write to it")
        return await self._entry(record)

    async def change(self, name: str, changes: CatalogueChanges) -> CatalogueReport:
        """Change a catalogue. Other attributes make a copy of its index: it may still be under way when the entry comes, which says so."""
        before = None if name == self._settings.catalogue else await self._catalogues.find(name)
        if before is None:
            changes.require_default()
        declared: dict[str, Attribute] | None = None
        has_index = False
        if changes.attributes is not None:
            async with self._catalogues.use(name) as catalogue:
                try:
                    now, has_index = catalogue.service.index().manifest.declared, True
                except IndexAbsentError:
                    if before is None:
                        raise
                    now = before.attributes or DEFAULT_ATTRIBUTES
            declared = changes.declare_on(now)
        if declared is None or not has_index:
            return await self._catalogues.finish(self._change_record(name, before, changes, declared))
        if name in self._changing:
            raise CatalogueConflictError(f"the attributes of {name!r} are being changed already: wait for the end (building)")
        task = self._changing[name] = self._catalogues.spawn(self._redeclare(name, before, changes, declared))
        task.add_done_callback(lambda done: self._on_changed(name, done))
        done, _ = await asyncio.wait({task}, timeout=CHANGE_S)
        if done:
            self._failed.pop(name, None)
            task.result()
        return await self._entry(before if before is None else await self._catalogues.find(name))

    async def _redeclare(
        self, name: str, before: CatalogueRecord | None, changes: CatalogueChanges, declared: dict[str, Attribute]
    ) -> None:
        async def note() -> None:
            if before is not None:
                await self._change_record(name, before, changes, declared)

        async with self._catalogues.use(name) as catalogue:
            with _conflict_while_built(name):
                await catalogue.redeclare(declared, note)

    def _on_changed(self, name: str, done: "asyncio.Task[None]") -> None:
        del self._changing[name]
        error = None if done.cancelled() else done.exception()
        self._failed.pop(name, None)
        if error is not None:
            log.warning("the attributes of the catalogue %s were not changed: %s", name, error)
            self._failed[name] = f"its attributes were not changed: {error}"

    async def _change_record(
        self, name: str, before: CatalogueRecord | None, changes: CatalogueChanges, declared: dict[str, Attribute] | None
    ) -> CatalogueReport:
        if before is None:
            return await self._entry(None)

        def change(now: CatalogueRecord) -> CatalogueRecord:
            if now.created != before.created or now.state == "deleting":
                raise absent(name)
            after = changes.apply_to(now)
            return after if declared is None else after.model_copy(update={"attributes": declared})

        record = await self._registry.update(name, change)
        self._catalogues.reread()
        return await self._entry(record)

    async def delete(self, name: str) -> None:
        """Delete a catalogue with all its items, once the messages under way in it have ended. The next call deletes what a kill leaves."""
        await self._catalogues.finish(self._delete(name))

    async def _delete(self, name: str) -> None:
        async def close() -> None:
            self._catalogues.reread()
            if (task := self._changing.get(name)) is not None:
                task.cancel()
                await asyncio.wait({task})
            await self._catalogues.remove(name)

        try:
            await delete_catalogue(self._registry, self._settings, name, self._store_of, close)
        finally:
            self._catalogues.reread()
            self._failed.pop(name, None)


@contextmanager
def _conflict_while_built(name: str) -> Iterator[None]:
    """Another build is what the request is in conflict with."""
    try:
        yield
    except IndexLockedError as error:
        raise CatalogueConflictError(f"the catalogue {name!r} is being built: {error}") from error
