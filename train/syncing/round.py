"""One round of a sync: read, compare, write, delete. Nothing is written before the whole source has been read and judged.

Whatever ends a round, the next one finishes its work: it compares again, or reads again from where the last whole round came to.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matinee.catalogue.proposal import propose_attributes
from matinee.client import calls
from matinee.client.calls import ServerInfo
from matinee.client.http import Client, ServerError
from matinee.client.items import Items
from matinee.client.models import RetryPolicy
from matinee.errors import SourceError
from matinee.index.imports import ImportState
from train.jobs.reader_options import ReaderOptions
from train.syncing.comparison import Changes, compare, ids_of, list_server, spool
from train.syncing.source import SHOWN, ExportedQuery, FileSource, Source, export
from train.syncing.sql import OtherColumnsError, SqlQuery
from train.syncing.state import StateFile, SyncState

DELETE_SLICE = 1000
_LOOK_S = 1.0
_LEAST_WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a round may do: `max_deleted` and `max_rejected` are shares of the catalogue and of the source's rows."""

    delete: bool = True
    max_deleted: float = 0.1
    max_rejected: float = 0.01
    compare_every_s: float = 86_400.0
    dry_run: bool = False


@dataclass
class SyncReport:
    """What a round did, or with a dry run would do. `compared`: against the whole catalogue; `seconds` by stage."""

    source: str
    compared: bool = True
    rows: int = 0
    written: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0
    skipped: int = 0
    deleted_ids: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@dataclass
class Round:
    """A round against `server`; `show` is told what it is doing. `run` raises `MatineeError` where source or server fail.

    A source that does not look whole is refused before anything is changed.
    """

    server: Client
    patience: RetryPolicy
    limits: Limits
    show: Callable[[str], None] = lambda _: None
    _is_first: bool = field(default=False, init=False)
    _made: str | None = field(default=None, init=False)

    def run(self, source: FileSource | SqlQuery, reading: ReaderOptions, state: StateFile) -> SyncReport:
        report = SyncReport(source.name)
        self.show("reaching the server")
        info = self._info()
        catalogue, index = info["catalogue"], info["index"]["version"] if info["index"] else None
        self._is_first = info["index"] is None and not info.get("index_trouble")
        if not self.limits.dry_run:
            self._await_imports(report)
        if isinstance(source, FileSource):
            self._compare(source, catalogue, self._list(report), report)
            return report
        known = state.read() if source.cursor else None
        overdue = known is not None and time.time() - known.compared_at > self.limits.compare_every_s
        if known is not None and known.index == index and not overdue and self._follow(source, reading, catalogue, known, state, report):
            return report
        started = time.time()
        server = self._list(report)
        with ExitStack() as stack:
            with report.stage("read"):
                self.show("running the query")
                rows = stack.enter_context(export(source, reading))
            self._compare(rows, catalogue, server, report)
            if source.cursor and rows.export.mark is not None and rows.rules is not None:
                self._keep(
                    state,
                    report,
                    SyncState(
                        mark=rows.export.mark, compared_at=started, index=self._made or index, columns=rows.export.columns, rules=rows.rules
                    ),
                )
        return report

    def _follow(
        self, query: SqlQuery, reading: ReaderOptions, catalogue: str, known: SyncState, state: StateFile, report: SyncReport
    ) -> bool:
        """Apply the rows since the last round. False where that can't be done, and everything has to be compared."""
        with ExitStack() as stack:
            with report.stage("read"):
                self.show("asking for the rows since the last round")
                try:
                    rows = stack.enter_context(export(query, reading, known))
                except OtherColumnsError:
                    return False
                report.compared = False
                changes = stack.enter_context(spool())
                compare(rows, catalogue, None, changes)
            self._judge(rows, changes, None, report)
            self._apply(changes, report)
            self._keep(state, report, known.model_copy(update={"mark": rows.export.mark}))
        return True

    def _keep(self, state: StateFile, report: SyncReport, reached: SyncState) -> None:
        """Remember how far this round came; not where an item was left as it is because somebody else wrote it meanwhile."""
        if not self.limits.dry_run and not report.skipped:
            state.write(reached)

    def _info(self) -> ServerInfo:
        return self.patience(f"reaching {self.server.url}", lambda: self.server.send(calls.info()))

    def _list(self, report: SyncReport) -> dict[bytes, bytes]:
        if self._is_first:
            return {}
        with report.stage("list"):
            return list_server(self.server, self.patience, lambda count: self.show(f"listing the catalogue: {count:,} items"))

    def _compare(self, source: FileSource | ExportedQuery, catalogue: str, server: dict[bytes, bytes], report: SyncReport) -> None:
        with spool() as changes:
            with report.stage("read"):
                self.show("reading the source")
                compare(source, catalogue, server, changes)
            self._judge(source, changes, server, report)
            self._apply(changes, report)

    def _judge(self, source: Source, changes: Changes, server: dict[bytes, bytes] | None, report: SyncReport) -> None:
        """Raises `SourceError` where the source does not look whole."""
        seen, limits = source.report, self.limits
        report.rows, report.rejected, report.unchanged = seen.rows, seen.rejected, changes.unchanged
        report.problems += [*seen.problems, *seen.warnings]
        nothing = "nothing was changed"
        if seen.cut is not None:
            raise SourceError(f"{source.name} looks cut off ({seen.cut}): {nothing}; write it again as a whole")
        if seen.derived_ids and isinstance(source, ExportedQuery) and source.export.mark is not None:
            raise SourceError(f"--cursor needs an id in each row, and {seen.derived_ids} rows have none: {nothing}; use --map id=COLUMN")
        if server is None:
            # Of a few rows a share says nothing, and what they lack is not deleted.
            return
        if seen.rejected > limits.max_rejected * seen.rows:
            raise SourceError(
                f"{source.name}: {seen.rejected} of {seen.rows} rows can't be used, more than --max-rejected {limits.max_rejected:g} "
                f"allows: {nothing}. The first: {seen.problems[0]}"
            )
        if not seen.items:
            raise SourceError(f"{source.name} has no usable item: {nothing}; is it the right source?")
        if limits.delete and len(changes.gone) > limits.max_deleted * len(server):
            raise SourceError(
                f"{source.name}: {len(changes.gone)} of the {len(server)} items of the catalogue are not in it, more than --max-deleted "
                f"{limits.max_deleted:g} allows: is the source whole? {nothing.capitalize()}. Raise --max-deleted to delete them, or keep "
                "them with --no-delete"
            )

    def _apply(self, changes: Changes, report: SyncReport) -> None:
        doomed = ids_of(changes.deleted | (changes.gone if self.limits.delete else set()))
        report.deleted_ids = doomed[:SHOWN]
        if self.limits.dry_run:
            report.written, report.deleted = changes.spool.lines, len(doomed)
            return
        items = Items(self.server)
        with report.stage("write"):
            if self._is_first:
                self.show("making the first index")
                self._create_index(changes)
            for number, path in enumerate(changes.spool.files, 1):
                self.show(f"sending {changes.spool.lines:,} items, part {number} of {len(changes.spool.files)}")
                self._import(items, path, report)
        with report.stage("delete"):
            for at in range(0, len(doomed), DELETE_SLICE):
                self.show(f"deleting {len(doomed):,} items")
                part = doomed[at : at + DELETE_SLICE]
                report.deleted += self.patience("deleting items", partial(items.delete, part)).count

    def _create_index(self, changes: Changes) -> None:
        """An empty index, which the items of the source are written to; what they can be filtered by is proposed from them."""
        attributes, _ = propose_attributes(changes.spool.items())
        call = calls.create_index({name: one.model_dump(mode="json") for name, one in attributes.items()})
        self._made = self.patience("making the first index", lambda: self.server.send(call))["version"]

    def _import(self, items: Items, path: Path, report: SyncReport) -> None:
        def send() -> ImportState:
            with path.open("rb") as lines:
                return items.start_import(lines)

        done = self._until_over(items, self.patience("sending items", send))
        report.written += done.written
        report.skipped += done.skipped
        report.rejected += done.rejected
        report.problems += [f"the server rejected an item: {one.reason}" for one in done.rejects[: SHOWN - len(report.problems)]]
        if done.status == "cancelled":
            raise ServerError(f"the import {done.id} was cancelled{f' ({done.trouble})' if done.trouble else ''}: run the sync again")

    def _await_imports(self, report: SyncReport) -> None:
        """Wait for the imports that are open now: a sync that was killed may have left one, and a new one would wait for them anyway."""
        items = Items(self.server)
        with report.stage("wait"):
            for state in self.patience("asking for open imports", items.imports):
                if state.status in ("queued", "running"):
                    self._until_over(items, state)

    def _until_over(self, items: Items, state: ImportState) -> ImportState:
        """Raises `ServerError` where the import does not get on for as long as a server may be out of reach."""
        limit_s = max(self.patience.seconds, _LEAST_WAIT_S)
        moved = time.monotonic()
        while not state.is_over:
            self.show(f"importing: {state.lines:,} of {state.total:,} lines")
            self.patience.sleep(_LOOK_S)
            before, state = state, self.patience("asking for the import", partial(items.import_state, state.id))
            if state.lines != before.lines or state.status != "running":
                moved = time.monotonic()
            if time.monotonic() - moved > limit_s:
                raise ServerError(
                    f"the import {state.id} has not got on for {limit_s:.0f} s ({state.trouble}); it goes on when it can", "unavailable"
                )
        return state
