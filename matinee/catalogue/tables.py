"""Tables: opens a source of any kind and gives its rows: delimited text, JSON Lines, a JSON array, Parquet, or a data set of the hub.

Does not know what the columns mean, apart from asking which headers are recognised when a dialect is chosen.
"""

import gzip
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow
import pyarrow.parquet

from matinee.catalogue.dialects import NAMES, CsvRecord, is_hint, records, sniff, trim
from matinee.catalogue.encodings import BLANK, SAMPLE, ByteStream, Encoding, damage, find_encoding, head, open_text
from matinee.catalogue.folder import FolderTable, NoRowsError
from matinee.catalogue.json_table import CountRecognised, JsonTable, RowProgress
from matinee.catalogue.ragged import LONG, SHORT, Ragged
from matinee.catalogue.rows import MAX_RAW, ReadOptions, Reject, Row, Table, no_progress
from matinee.catalogue.typed import column_values, plain_row
from matinee.characters import tidy
from matinee.errors import SourceError
from matinee.files import user_path

BATCH = 2048
# So many rows show how whole ones look.
_LOOK = 1000
_LINE_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".pq": "parquet"}


def open_table(source: str, known: CountRecognised, options: ReadOptions) -> Table:
    """The table behind a file, a folder of files, or `hub:owner/name[@revision][:split]`. Raises `SourceError` where there is none."""
    if source.startswith("hub:"):
        from matinee.catalogue.hub import HubTable  # its library takes seconds to import

        return HubTable(source.removeprefix("hub:"))
    path = user_path(source)
    try:
        if path.is_dir():
            return FolderTable(path, lambda part: _open_file(part, known, options))
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty: write the catalogue into it, or name another file")
        return _open_file(path, known, options)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


def _open_file(path: Path, known: CountRecognised, options: ReadOptions) -> Table:
    start = head(path, 4096)
    if not start:
        raise SourceError(f"{path} is empty, or cut off in its first bytes")
    kind = _LINE_SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if start.startswith(b"PAR1") or kind == "parquet":
        return ParquetTable(path)
    encoding = find_encoding(path, options)
    text = start.decode(encoding.name, "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("[") and kind in (None, "json", "jsonl"):
        return JsonTable(path, encoding, known, array=True)
    if kind or text.startswith("{"):
        return JsonTable(path, encoding, known, array=False)
    return DelimitedTable(path, encoding, known, options)


class DelimitedTable:
    """CSV and its relatives."""

    unit: Literal["bytes", "rows"] = "bytes"

    def __init__(self, path: Path, encoding: Encoding, known: CountRecognised, options: ReadOptions) -> None:
        self._path = path
        self._encoding = encoding
        self.total = path.stat().st_size
        self.notes = [encoding.note] if encoding.note else []
        with open_text(path, encoding) as (text, _):
            sample = text.read(SAMPLE)
            whole = not text.read(1)
        if not sample.strip():
            raise SourceError(f"{path} is empty: it has no header and no rows")
        self.dialect = sniff(sample, whole, known, options, str(path))
        self.delimiter: str | None = self.dialect.delimiter
        self.format = {
            "kind": "delimited text",
            "encoding": encoding.name.removesuffix("-sig"),
            "delimiter": NAMES.get(self.delimiter or "", self.delimiter or ""),
            "quote": self.dialect.quote or "none",
        }
        self.columns = self._header(known)
        self._ragged = self._look()
        if _ends_open(path, encoding):
            self.notes.append("the last line has no line end: if the file was cut off there, its last cell is short")
        if next(self.rows(no_progress), None) is None:
            raise NoRowsError(f"{path} has a header ({', '.join(self.columns)}) but no rows")

    def _header(self, known: CountRecognised) -> tuple[str, ...]:
        with open_text(self._path, self._encoding) as (text, _):
            first = next((r for r in self._records(text) if isinstance(r, Reject) or any(map(str.strip, r.cells))), None)
        if not isinstance(first, CsvRecord):
            raise SourceError(f"{self._path}: the header can't be read: {first.reason if first else 'there is none'}")
        names = [" ".join(tidy(cell).split()) for cell in trim(first.cells)]
        first_places: dict[str, int] = {}
        numbers: dict[str, Iterator[int]] = {}
        taken = set(names)
        for place, name in enumerate(names):
            first_place = first_places.setdefault(name, place + 1)
            if name and first_place <= place:
                if known([name]):
                    raise SourceError(
                        f"{self._path}: the column {name!r} appears twice (columns {first_place} and {place + 1}): rename one"
                    )
                # Nothing but a fact: which of them is meant is no question.
                number = next(n for n in numbers.setdefault(name, count(2)) if f"{name} {n}" not in taken)
                self.notes.append(f"column {place + 1} is named {name!r} like column {first_place}: it was called '{name} {number}'")
                names[place] = f"{name} {number}"
                taken.add(names[place])
        unnamed = [str(place) for place, name in enumerate(names, 1) if not name]
        if unnamed:
            self.notes.append(f"column {', '.join(unnamed)} has no name and was left out")
        return tuple(names)

    def _records(self, text: Iterator[str]) -> Iterator[CsvRecord | Reject]:
        width = len(getattr(self, "columns", ()))
        for record in records(text, self.dialect, width):
            if isinstance(record, CsvRecord) and record.line == 1 and is_hint(record.raw.rstrip("\r\n")):
                continue
            yield record

    def rows(self, progress: RowProgress) -> Iterator[Row | Reject]:
        last = 1
        with open_text(self._path, self._encoding) as (text, stream):
            # Records that may end early, which only the next whole one can tell.
            early: list[CsvRecord] = []
            for record in islice(self._fill_rows(text), 1, None):
                last = record.line
                if isinstance(record, CsvRecord) and record.ended and len(trim(record.cells)) < len(self.columns):
                    early.append(record)
                    continue
                yield from self._early(early)
                early = []
                yield self._row(record, stream) if isinstance(record, CsvRecord) else record
                progress(stream.position())
            yield from self._early(early)
            if stream.cut:
                yield Reject(last, "the compressed file ends early: it is cut off after this line", "", cut=True)

    def _fill_rows(self, text: Iterator[str]) -> Iterator[CsvRecord | Reject]:
        return (r for r in self._records(text) if isinstance(r, Reject) or any(cell.strip(BLANK) for cell in r.cells))

    def _look(self) -> Ragged:
        width = len(self.columns)
        with open_text(self._path, self._encoding) as (text, _):
            start = islice(self._fill_rows(text), 1, _LOOK)
            whole = [trim(r.cells, width) for r in start if isinstance(r, CsvRecord)]
            return Ragged((cells for cells in whole if len(cells) == width), width, self.dialect.delimiter)

    def _early(self, records: list[CsvRecord]) -> Iterator[Row | Reject]:
        """Rows whose last cells are missing, one after the other."""
        width = len(self.columns)
        rows = [trim(record.cells) for record in records]
        whole = bool(records) and (all(len(record.cells) == width for record in records) or self._ragged.may_end_early(rows))
        for record, cells in zip(records, rows, strict=True):
            if whole or len(record.cells) >= width:
                repaired = SHORT if len(record.cells) < width else None
                yield self._build_row(record, [*cells, *[""] * (width - len(cells))], repaired)
            else:
                yield Reject(record.line, f"has {len(cells)} columns, the header has {width}", record.raw[:MAX_RAW])

    def _row(self, record: CsvRecord, stream: ByteStream) -> Row | Reject:
        width = len(self.columns)
        cells = trim(record.cells, width)
        raw = record.raw[:MAX_RAW]
        if not record.ended and (stream.cut or len(cells) < width or damage(record.raw, self._encoding)):
            return Reject(record.line, "the file ends in the middle of this row: it looks cut off", raw, cut=True)
        joined = self._ragged.join(cells) if len(cells) > width else None
        if len(cells) != width and joined is None:
            return Reject(record.line, f"has {len(cells)} columns, the header has {width}", raw)
        return self._build_row(record, joined or cells, LONG if joined else None)

    def _build_row(self, record: CsvRecord, cells: list[str], repaired: str | None) -> Row:
        damaged = damage(record.raw, self._encoding)
        if not damaged:
            return Row(record.line, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name}, repaired)
        # As bytes, a value is no text, and is left out where it is used.
        values = {
            name: cell.encode("utf-8", "surrogateescape") if damage(cell, self._encoding) else cell
            for name, cell in zip(self.columns, cells, strict=True)
            if name
        }
        return Row(record.line, values, f"{damaged}; the values that hold them were left out")


def _ends_open(path: Path, encoding: Encoding) -> bool:
    """Whether the last line has no line end; a packed file has a mark of its own."""
    size = len("\n".encode(encoding.name.removesuffix("-sig")))
    with path.open("rb") as data:
        packed = data.read(2) == b"\x1f\x8b"
        data.seek(-min(size, path.stat().st_size), 2)
        return not packed and not {10, 13, 26} & set(data.read())


class ParquetTable:
    """A Parquet file; a packed one is unpacked into a temporary file for each pass, since it is read from its end."""

    unit: Literal["bytes", "rows"] = "rows"
    delimiter: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        with self._open() as file:
            self.columns = tuple(file.schema_arrow.names)
            self.format = {"kind": "Parquet"}
            self.total = file.metadata.num_rows
        twice = sorted(name for name, times in Counter(self.columns).items() if times > 1)
        if twice:
            raise SourceError(f"{path}: the column {twice[0]!r} appears twice: rename one")
        if not self.total:
            raise NoRowsError(f"{path} has columns ({', '.join(self.columns)}) but no rows")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with ExitStack() as stack:
            try:
                data: IO[bytes] = stack.enter_context(self._path.open("rb"))
                if data.read(2) == b"\x1f\x8b":
                    unpacked = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(stack.enter_context(gzip.open(self._path)), unpacked)
                    data = unpacked
                data.seek(0)
                file = stack.enter_context(pyarrow.parquet.ParquetFile(data))
            except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
                raise SourceError(f"{self._path} is not a whole Parquet file (cut off, or of another kind): {error}") from None
            yield file

    def rows(self, progress: RowProgress) -> Iterator[Row | Reject]:
        number = 0
        with self._open() as file:
            try:
                for batch in file.iter_batches(BATCH):
                    columns = [column_values(column) for column in batch.columns]
                    for values in zip(*columns, strict=True):
                        number += 1
                        yield Row(number, plain_row(dict(zip(self.columns, values, strict=True))))
                    progress(number)
            except (pyarrow.ArrowException, OSError) as error:
                raise SourceError(f"{self._path} is damaged after row {number}: {error}") from None
