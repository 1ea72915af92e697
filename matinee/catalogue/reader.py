"""Sources: a catalogue file or a data set of the hub becomes clean `Item`s, and a report of what was not usable.

    reader = read_items("films.csv", mapping={"overview": "Overview"}, kind="film")
    for item in reader: ...
    print(reader.report.warnings); write_rejects(reader.report, folder)

Rows are streamed; what stays in memory is about 300 bytes a row, to find duplicates. Reading twice gives the same items with the same ids,
in whatever order the rows stand. Does not embed, store or write items.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from matinee.catalogue.builder import Builder
from matinee.catalogue.cells import CellError
from matinee.catalogue.columns import count_recognised
from matinee.catalogue.inference import SchemaInference
from matinee.catalogue.rows import MAX_RAW, ReadOptions, Reject, Row, no_progress, place
from matinee.catalogue.rules import ColumnRules
from matinee.catalogue.summary import ColumnSummary, Summary
from matinee.catalogue.tables import open_table
from matinee.errors import SourceError
from matinee.files import replacing
from matinee.items import Item

__all__ = ["ItemReader", "ReadOptions", "Reject", "Report", "read_items", "write_rejects"]

MAX_REJECTS = 100_000


@dataclass
class Report:
    """What became of a source's rows. Complete once the reader was read to its end: rows = items + duplicates + rejects."""

    source: str
    name: str
    columns: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    items: int = 0
    duplicates: int = 0
    mojibake_fixed: int = 0
    derived_ids: int = 0
    truncated: bool = False
    # What rows were read in spite of -> where they stand.
    repaired: dict[str, list[str]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)


def read_items(
    source: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    kind: str | None = None,
    options: ReadOptions | None = None,
    rules: ColumnRules | None = None,
) -> "ItemReader":
    """A reader of the items in `source`: a file (CSV, TSV, JSONL, JSON, Parquet; also .gz), a folder of such,
    or `hub:owner/name[@revision][:split]`.

    `mapping` goes from target to column (`{"overview": "Plot"}`) and is stronger than what the names suggest. `kind` is for rows that
    don't say theirs. With the `rules` of an earlier reader nothing is learned from the rows: a few of a table are read as all of them were.
    Raises `SourceError` where the source can't be read, or could be read in two ways.
    """
    return ItemReader(str(source), dict(mapping or {}), kind, options or ReadOptions(), rules)


class ItemReader:
    """Iterate it for items; `report` is of the latest iteration, `done` of `total` `unit` are behind it, `row` is that of the last item."""

    def __init__(
        self, source: str, mapping: Mapping[str, str], kind: str | None, options: ReadOptions, rules: ColumnRules | None = None
    ) -> None:
        self._table = open_table(source, lambda header: count_recognised(header, mapping), options)
        self._notes = [*self._table.notes]
        if rules is not None:
            self._builder = Builder.of(rules)
        else:
            inference = SchemaInference(self._table, mapping, kind, options)
            try:
                self._builder = inference.infer()
            except SourceError as error:
                raise SourceError(f"{source}: {error}") from None
            self._notes += inference.warnings
        self._source = source
        self._shared, self._new_shared = self._shared_identities()
        self.total = self._table.total
        self.unit = self._table.unit
        self.done = 0
        self.row: Row | Reject | None = None
        self.report = self._new_report()

    @property
    def rules(self) -> ColumnRules:
        """How the columns are read, for a later reader of some rows of the same table."""
        return self._builder.column_rules()

    def own_id(self, values: Mapping[str, Any]) -> str | None:
        """The catalogue's own id of a row of this source, None where it has none."""
        return self._builder.own_id(values)

    def _new_report(self) -> Report:
        columns = {column: target for column, target in self._builder.targets.items() if column}
        fresh = {column: ColumnSummary(column, field.target, field.rules) for column, field in self._builder.rules.summary.fields.items()}
        self._builder.rules.summary = Summary(self._table.format, fresh)
        return Report(self._source, source_name(self._source), columns, warnings=list(self._notes), summary=self._builder.rules.summary)

    def _shared_identities(self) -> tuple[set[bytes], set[bytes]]:
        """The derived identities that several different rows have: among rows that always had items, and those that new rows share."""
        seen: dict[bytes, bytes] = {}
        new: dict[bytes, bytes] = {}
        shared: set[bytes] = set()
        new_shared: set[bytes] = set()
        overview = self._builder.column("overview")
        for row in self._table.rows(no_progress):
            if not isinstance(row, Row) or self._builder.own_id(row.values) is not None:
                continue
            try:
                parts, is_new = self._builder.identity(row)
            except CellError:
                continue
            identity = _digest(*parts)
            text = str(row.values.get(overview) or "") if overview else ""
            content = _digest(text or repr(row.values))
            if (new if is_new else seen).setdefault(identity, content) != content:
                (new_shared if is_new else shared).add(identity)
        # A new item must not change the id of one that was there before.
        new_shared |= {identity for identity, content in new.items() if seen.get(identity, content) != content}
        return shared, new_shared

    def __iter__(self) -> Iterator[Item]:
        report = self.report = self._new_report()
        self.done = 0
        seen: dict[str, tuple[int, str, bytes]] = {}
        for row in self._table.rows(self._progress):
            report.rows += 1
            result = self._take(row, report, seen)
            if isinstance(result, Item):
                report.items += 1
                self.row = row
                yield result
            elif result is not None:
                self._reject(result, report)
        self.done = self.total
        self._conclude(report)

    def _progress(self, done: int) -> None:
        self.done = done

    def _take(self, row: Row | Reject, report: Report, seen: dict[str, tuple[int, str, bytes]]) -> Item | Reject | None:
        """The row's item, why it has none, or None for a row that says again what an earlier one said."""
        if isinstance(row, Reject):
            return row
        if row.repaired is not None:
            if self._builder.rules.strict:
                return self._reject_row(row, f"has {row.repaired.partition(';')[0]}")
            report.repaired.setdefault(row.repaired, []).append(row.place)
        try:
            item, about, repaired, is_new = self._builder.item(row)
        except CellError as error:
            return self._reject_row(row, str(error))
        if item.id is None:
            item = self._with_own_id(item, about, is_new=is_new)
            report.derived_ids += 1
        uid = item.uid("")
        content = _digest(item.model_dump_json())
        if uid not in seen:
            seen[uid] = (row.line, row.file, content)
            report.mojibake_fixed += repaired
            return item
        line, file, before = seen[uid]
        if before == content:
            report.duplicates += 1
            return None
        what = f"id {item.id!r}" if item.id else f"kind, title and year ({item.title!r}, {item.year})"
        return self._reject_row(row, f"has the {what} of {place(line, file)}, but other facts; the first was kept")

    def _reject_row(self, row: Row, reason: str) -> Reject:
        return Reject(row.line, reason, _raw(row), id=self._builder.own_id(row.values), file=row.file)

    def _with_own_id(self, item: Item, about: str, *, is_new: bool) -> Item:
        """Several different things share this kind, title and year: what they are about tells them apart, in any row order."""
        title, year = item.identity or (item.title, item.year)
        identity = (item.kind, title.casefold(), str(year))
        if _digest(*identity) not in (self._new_shared if is_new else self._shared):
            return item
        about = about or item.model_copy(update={"title": title, "year": year}).model_dump_json(exclude={"numbers", "id", "identity"})
        return item.model_copy(update={"id": f"derived-{_digest(*identity, about).hex()}", "identity": None})

    def _reject(self, reject: Reject, report: Report) -> None:
        report.rejects.append(reject)
        report.truncated |= reject.cut
        if len(report.rejects) > MAX_REJECTS:
            raise SourceError(
                f"{self._source} has more than {MAX_REJECTS:,} broken rows; the last, on {reject.place}: {reject.reason}. "
                "Look at the dialect (--delimiter, --quote, --encoding) and the mapping (--map)"
            )

    def _conclude(self, report: Report) -> None:
        tell = report.warnings.append
        if report.truncated:
            cut = next(reject for reject in report.rejects if reject.cut)
            report.warnings.insert(0, f"THE SOURCE LOOKS CUT OFF at {cut.place}: {cut.reason}; the whole rows before it were read")
        if report.derived_ids:
            few = "no id column" if self._builder.column("id") is None else f"{report.derived_ids} rows have no id"
            tell(f"{few}: ids are derived from kind, title and year")
        if self._shared:
            tell(
                f"{len(self._shared)} combinations of kind, title and year belong to several different items: their ids also hold a digest"
            )
        if report.duplicates:
            tell(f"{report.duplicates} rows repeat an earlier row and were counted once")
        if report.mojibake_fixed:
            tell(f"mojibake was repaired in {report.mojibake_fixed} items")
        for what, lines in report.repaired.items():
            tell(f"{len(lines)} rows have {what}, the first on {lines[0]}")
        for entry in report.summary.fields.values():
            report.warnings.extend(entry.warnings())
        if report.summary.other_titles:
            others = ", ".join(map(repr, self._builder.other_titles))
            tell(f"{report.summary.other_titles} items have no {self._builder.column('title')!r}, and take their title from {others}")
        if report.summary.titles_with_year:
            tell(f"{report.summary.titles_with_year} items have no other year than the one at the end of their title")
        if report.rejects:
            tell(f"{len(report.rejects)} of {report.rows} rows were rejected")


def source_name(source: str) -> str:
    """A short name for a source, fit for a file name: `films` for `data/films.csv.gz`, `owner-name` for a hub's."""
    if source.startswith("hub:"):
        return re.sub(r"[^\w.-]+", "-", source.removeprefix("hub:").strip("/")).strip("-.") or "hub"
    return Path(source).name.removesuffix(".gz").rsplit(".", 1)[0] or "source"


def write_rejects(report: Report, folder: Path) -> Path | None:
    """Writes `<name>.rejects.jsonl` (file of a folder, line, reason, raw) in one step; without rejects, removes that of an earlier run."""
    path = folder / f"{report.name}.rejects.jsonl"
    if not report.rejects:
        path.unlink(missing_ok=True)
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as out:
        for reject in report.rejects:
            raw = reject.raw.encode("utf-8", "backslashreplace").decode()
            row = ({"file": reject.file} if reject.file else {}) | {"line": reject.line, "reason": reject.reason, "raw": raw}
            out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return path


def _raw(row: Row) -> str:
    return json.dumps(row.values, ensure_ascii=False, default=_as_written)[:MAX_RAW]


def _as_written(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
