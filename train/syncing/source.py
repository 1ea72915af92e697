"""What a source gives in one round: its items, read by the one catalogue reader, and the rows that gave none. Does not know a server."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from matinee.catalogue.reader import ItemReader
from matinee.catalogue.rules import ColumnRules
from matinee.errors import SourceError
from matinee.items import Item, item_uid
from train.jobs.reader_options import ReaderOptions
from train.syncing.files import Files
from train.syncing.sql import Export, SqlQuery
from train.syncing.state import SyncState

SHOWN = 10
"""Rejects and warnings that a round reports in words."""


class SourceItem(NamedTuple):
    """An item with its index id."""

    uid: uuid.UUID
    item: Item


@dataclass
class SourceReport:
    """What became of the rows. `rejected_uids` are the items of rejected rows, where these have ids; `problems` name some of them.

    `warnings` are of rows that were read: values that were left out or cut, and what was repaired.
    """

    rows: int = 0
    items: int = 0
    rejected: int = 0
    derived_ids: int = 0
    cut: str | None = None
    rejected_uids: set[bytes] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, reader: ItemReader, catalogue: str, location: str) -> None:
        """Count what was read to its end."""
        report = reader.report
        self.rows += report.rows
        self.derived_ids += report.derived_ids
        self.warnings = [*self.warnings, *(f"{location} {warning}" for warning in report.warnings)][:SHOWN]
        for reject in report.rejects:
            if reject.cut:
                self.cut = f"{location} {reject.place}: {reject.reason}"
            self.reject(f"{location} {reject.place}: {reject.reason}", None if reject.id is None else item_uid(catalogue, reject.id))

    def reject(self, problem: str, uid: str | None) -> None:
        self.rejected += 1
        if uid is not None:
            self.rejected_uids.add(uuid.UUID(uid).bytes)
        if len(self.problems) < SHOWN:
            self.problems.append(problem)


class Source(Protocol):
    """Something that items can be read from. `report` is of the last iteration. All of it raises `SourceError`."""

    name: str
    report: SourceReport

    def items(self, catalogue: str) -> Iterator[SourceItem]: ...

    def deleted(self) -> set[bytes]:
        """Index ids of the rows that are marked as deleted. Known after the iteration."""
        ...


class FileSource:
    """The items of all files together; of rows in two files with one id, the first counts."""

    def __init__(self, source: str, reading: ReaderOptions) -> None:
        self._files, self._reading = Files(source), reading
        self.name = source
        self.report = SourceReport()

    def items(self, catalogue: str) -> Iterator[SourceItem]:
        self.report = SourceReport()
        for path in self._files.paths():
            location = self._files.location(path)
            with self._files.local(path) as local, name_in_errors(local, location):
                reader = self._reading.read(local)
                yield from _items(reader, catalogue)
                self.report.add(reader, catalogue, location)

    def deleted(self) -> set[bytes]:
        return set()


class ExportedQuery:
    """The rows of a query, of which one export was made."""

    def __init__(self, query: SqlQuery, export: Export, path: Path, reading: ReaderOptions, rules: ColumnRules | None) -> None:
        self.name, self.report = query.name, SourceReport()
        self.export, self._path = export, path
        self._reading = read_as_exported(reading)
        self._given = rules
        self.rules: ColumnRules | None = None
        self._deleted: set[bytes] = set()

    def items(self, catalogue: str) -> Iterator[SourceItem]:
        self.report, self._deleted = SourceReport(), set()
        if not self.export.rows:
            return
        with name_in_errors(str(self._path), "the query's rows"):
            reader = self._reading.read(str(self._path), self._given)
            self.rules = reader.rules
            for row in self.export.deleted:
                id = reader.own_id(row)
                if id is None:
                    raise SourceError("--deleted needs rows with an id: name its column with --map id=COLUMN")
                self._deleted.add(uuid.UUID(item_uid(catalogue, id)).bytes)
            yield from (row for row in _items(reader, catalogue) if row.uid.bytes not in self._deleted)
            self.report.add(reader, catalogue, "the query's rows,")

    def deleted(self) -> set[bytes]:
        return self._deleted


@contextmanager
def export(query: SqlQuery, reading: ReaderOptions, since: SyncState | None = None) -> Iterator[ExportedQuery]:
    """The rows of a query, kept in a temporary file until the end of the `with`.

    With `since`, only the rows since then, read by the rules of then; raises `OtherColumnsError` where the query gives other columns now.
    """
    with tempfile.TemporaryDirectory(prefix="matinee-sync-") as folder:
        path = Path(folder) / "query.jsonl"
        export = query.export(path) if since is None else query.export(path, since.mark, since.columns)
        yield ExportedQuery(query, export, path, reading, None if since is None else since.rules)


def read_as_exported(reading: ReaderOptions) -> ReaderOptions:
    """How the file of an export is read: as it was written."""
    return replace(reading, encoding="utf-8", delimiter=None, quote=None)


def _items(reader: ItemReader, catalogue: str) -> Iterator[SourceItem]:
    return (SourceItem(uuid.UUID(item.uid(catalogue)), item) for item in reader)


@contextmanager
def name_in_errors(path: str, name: str) -> Iterator[None]:
    """Let the errors of the reader name what it read, and not where a copy of it lies."""
    try:
        yield
    except SourceError as error:
        raise SourceError(str(error).replace(path, name)) from None
