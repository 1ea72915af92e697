"""Tables: opens a source of any kind and gives its rows: delimited text, JSON Lines, a JSON array, Parquet, or a data set of the hub.

Does not know what the columns mean, apart from asking which headers are recognised when a dialect is chosen.
"""

import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pyarrow
import pyarrow.parquet

from matinee.catalogue.columns import HAS_TITLE
from matinee.catalogue.dialects import NAMES, Record, is_hint, records, sniff, trim
from matinee.catalogue.documents import rows_inside
from matinee.catalogue.encodings import ByteStream, Encoding, find_encoding, head, open_text
from matinee.catalogue.rows import MAX_RAW, ReadOptions, Reject, Row, Table, no_progress
from matinee.catalogue.typed import column_values, plain_row
from matinee.errors import SourceError
from matinee.files import user_path

Progress = Callable[[int], None]
Known = Callable[[list[str]], int]

BATCH = 2048
SAMPLE = 1 << 18
MAX_LINE = 1 << 24
# Characters of a JSON object that holds all rows: it is read whole.
MAX_DOCUMENT = 1 << 27
# White space, and the end mark of old DOS programs.
_BLANK = " \t\r\n\x1a"
_LINE_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".pq": "parquet"}


def open_table(source: str, known: Known, options: ReadOptions) -> Table:
    """The table behind a path or `hub:owner/name[@revision][:split]`. Raises `SourceError` where there is none."""
    if source.startswith("hub:"):
        from matinee.catalogue.hub import HubTable  # its library takes seconds to import

        return HubTable(source.removeprefix("hub:"))
    path = user_path(source)
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a directory: give one file, or hub:{path} for a folder that `datasets` can load")
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty")
        return _open_file(path, known, options)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


def _open_file(path: Path, known: Known, options: ReadOptions) -> Table:
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

    def __init__(self, path: Path, encoding: Encoding, known: Known, options: ReadOptions) -> None:
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
        self.columns = self._header()
        if _ends_open(path, encoding):
            self.notes.append("the last line has no line end: if the file was cut off there, its last cell is short")
        if next(self.rows(no_progress), None) is None:
            raise SourceError(f"{path} has a header ({', '.join(self.columns)}) but no rows")

    def _header(self) -> tuple[str, ...]:
        with open_text(self._path, self._encoding) as (text, _):
            first = next((r for r in self._records(text) if isinstance(r, Reject) or any(map(str.strip, r.cells))), None)
        if not isinstance(first, Record):
            raise SourceError(f"{self._path}: the header can't be read: {first.reason if first else 'there is none'}")
        names = [" ".join(cell.split()) for cell in trim(first.cells)]
        for place, name in enumerate(names):
            if name and name in names[:place]:
                raise SourceError(
                    f"{self._path}: the column {name!r} appears twice (columns {names.index(name) + 1} and {place + 1}): rename one"
                )
        unnamed = [str(place) for place, name in enumerate(names, 1) if not name]
        if unnamed:
            self.notes.append(f"column {', '.join(unnamed)} has no name and was left out")
        return tuple(names)

    def _records(self, text: Iterator[str]) -> Iterator[Record | Reject]:
        width = len(getattr(self, "columns", ()))
        for record in records(text, self.dialect, width):
            if isinstance(record, Record) and record.line == 1 and is_hint(record.raw.rstrip("\r\n")):
                continue
            yield record

    def rows(self, progress: Progress) -> Iterator[Row | Reject]:
        last = 1
        with open_text(self._path, self._encoding) as (text, stream):
            found = (r for r in self._records(text) if isinstance(r, Reject) or any(cell.strip(_BLANK) for cell in r.cells))
            next(found)
            for record in found:
                last = record.line
                if isinstance(record, Record):
                    yield self._row(record, stream)
                else:
                    yield record
                progress(stream.position())
            if stream.cut:
                yield Reject(last, "the compressed file ends early: it is cut off after this line", "", cut=True)

    def _row(self, record: Record, stream: ByteStream) -> Row | Reject:
        width = len(self.columns)
        cells = trim(record.cells, width)
        raw = record.raw[:MAX_RAW]
        if not record.ended and (stream.cut or len(cells) < width):
            return Reject(record.line, "the file ends in the middle of this row: it looks cut off", raw, cut=True)
        if len(cells) != width:
            return Reject(record.line, f"has {len(cells)} columns, the header has {width}", raw)
        damaged = _damage(record.raw, self._encoding)
        if damaged:
            return Reject(record.line, damaged, raw, cut=not record.ended)
        return Row(record.line, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name})


def _ends_open(path: Path, encoding: Encoding) -> bool:
    """Whether the last line has no line end; the end of a packed file is told by its own mark."""
    size = len("\n".encode(encoding.name.removesuffix("-sig")))
    with path.open("rb") as data:
        packed = data.read(2) == b"\x1f\x8b"
        data.seek(-min(size, path.stat().st_size), 2)
        return not packed and not {10, 13, 26} & set(data.read())


def _damage(raw: str, encoding: Encoding) -> str | None:
    if raw.isascii():
        return None
    if encoding.errors == "surrogateescape":
        return "has bytes that are not UTF-8" if re.search("[\udc80-\udcff]", raw) else None
    return f"has bytes that are not {encoding.name}" if "\ufffd" in raw else None


class JsonTable:
    """JSON Lines, one JSON array of objects, which is read piece by piece, or one object that holds the rows."""

    unit: Literal["bytes", "rows"] = "bytes"
    delimiter: str | None = None
    columns: tuple[str, ...] = ()

    def __init__(self, path: Path, encoding: Encoding, known: Known, *, array: bool) -> None:
        self._path = path
        self._encoding = encoding
        self._array = array
        self.format = {"kind": "JSON array" if array else "JSON Lines", "encoding": encoding.name.removesuffix("-sig")}
        self.total = path.stat().st_size
        self.notes = [encoding.note] if encoding.note else []
        self._document: list[dict[str, Any]] = []
        start = list(islice(self.rows(no_progress), 2))
        first = next(iter(start), None)
        if first is None:
            raise SourceError(f"{path} has no rows")
        if not array and (isinstance(first, Reject) or len(start) == 1):
            self._document = self._rows_inside(known)
        if self._document:
            self.format["kind"] = "JSON document"
            return
        if not array and isinstance(first, Reject) and first.raw.strip() in ("{", "["):
            raise SourceError(f"{path} holds one JSON object over many lines: give one object a line (JSONL), or one array of objects")

    def rows(self, progress: Progress) -> Iterator[Row | Reject]:
        last = 1
        for number, values in enumerate(self._document, 1):
            yield Row(number, plain_row(values))
        if self._document:
            progress(self.total)
            return
        with open_text(self._path, self._encoding) as (text, stream):
            for row in self._elements(text) if self._array else self._lines(text, stream):
                last = row.line
                yield row
                progress(stream.position())
            if stream.cut:
                yield Reject(last, "the compressed file ends early: it is cut off after this line", "", cut=True)

    def _rows_inside(self, known: Known) -> list[dict[str, Any]]:
        with open_text(self._path, self._encoding) as (text, _):
            content = text.read(MAX_DOCUMENT + 1)
        try:
            document = _parse(content.lstrip("\ufeff")) if len(content) <= MAX_DOCUMENT else None
        except ValueError:
            return []
        return rows_inside(document, lambda row: known(list(row)) >= HAS_TITLE) if isinstance(document, dict) else []

    def _lines(self, text: Iterator[str], stream: ByteStream) -> Iterator[Row | Reject]:
        for number, line in enumerate(text, 1):
            if not line.strip("\ufeff" + _BLANK):
                continue
            damaged = _damage(line, self._encoding)
            if damaged:
                yield Reject(number, damaged, line[:MAX_RAW])
                continue
            try:
                yield _object(number, _parse(line.lstrip("\ufeff")), line)
            except ValueError as error:
                cut = not line.endswith(("\n", "\r"))
                end = "the file ends in the middle of this object: it looks cut off"
                yield Reject(number, end if cut else f"is not valid JSON: {error}", line[:MAX_RAW], cut)

    def _elements(self, text: Any) -> Iterator[Row | Reject]:
        decoder = json.JSONDecoder()
        start, _, buffer = text.read(SAMPLE).partition("[")
        number, margin = 1 + start.count("\n"), start.rpartition("\n")[2]
        while True:
            skipped = len(buffer) - len(buffer.lstrip(" \t\r\n,"))
            number += buffer.count("\n", 0, skipped)
            if "\n" in buffer[:skipped]:
                margin = buffer[:skipped].rpartition("\n")[2]
            buffer = buffer[skipped:]
            if buffer.startswith("]"):
                return
            broken: int | None = None
            try:
                value, end = decoder.raw_decode(buffer) if buffer else (None, 0)
            except (ValueError, RecursionError) as error:
                value, end = None, 0
                broken = getattr(error, "pos", None)
            if end and (end < len(buffer) or buffer[0] == "{"):
                yield _object(number, value, buffer[:end])
                number += buffer.count("\n", 0, end)
                buffer = buffer[end:]
                continue
            # An element that starts its line, as this one did, is the next one; others may be parts of this one.
            following = -1 if broken is None or margin.strip() else buffer.find(f"\n{margin}{{", broken)
            if following > 0:
                yield Reject(number, "is not valid JSON", buffer[:MAX_RAW])
                number += buffer.count("\n", 0, following)
                buffer = buffer[following:]
                continue
            more = text.read(SAMPLE)
            if not more or len(buffer) > MAX_LINE:
                reason = "the array breaks off here: it looks cut off" if not more else "is not valid JSON, nothing after it can be read"
                yield Reject(number, reason, buffer[:MAX_RAW], cut=True)
                return
            buffer += more


def _parse(line: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if not re.search("NaN|Infinity", line):
            raise
        # Many programs write them, though JSON has none: as values that are not there, they cost nothing else.
        try:
            return json.loads(line)
        except ValueError:
            raise error from None


def _object(number: int, value: Any, raw: str) -> Row | Reject:
    if isinstance(value, dict):
        return Row(number, plain_row(value))
    return Reject(number, f"holds a {type(value).__name__}, not an object", raw[:MAX_RAW])


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
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise SourceError(f"{path}: the column {twice[0]!r} appears twice: rename one")
        if not self.total:
            raise SourceError(f"{path} has columns ({', '.join(self.columns)}) but no rows")

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

    def rows(self, progress: Progress) -> Iterator[Row | Reject]:
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
