"""JSON tables: JSON Lines, an array of objects that is read piece by piece, or one object that holds the rows.

Values come as programs write them, also where JSON has no form for them. Does not know what a key means.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from matinee.catalogue.columns import HAS_TITLE
from matinee.catalogue.documents import rows_inside
from matinee.catalogue.encodings import BLANK, ByteStream, Encoding, damage, open_text
from matinee.catalogue.json_values import BLANKS, REPAIRED, decode, end_of, values_in
from matinee.catalogue.rows import MAX_RAW, Reject, Row, no_progress
from matinee.catalogue.typed import HALF, plain_row, without_surrogates
from matinee.errors import SourceError, kind_of

RowProgress = Callable[[int], None]
CountRecognised = Callable[[list[str]], int]

MAX_LINE = 1 << 24
# Characters of a JSON object that holds all rows: it is read whole.
MAX_DOCUMENT = 1 << 27
# Characters of an array that are read at a time.
_PIECE = 1 << 16
_BETWEEN = re.compile(r"[ \t\r\n,]*+")


class JsonTable:
    """JSON Lines, one JSON array of objects, which is read piece by piece, or one object that holds the rows."""

    unit: Literal["bytes", "rows"] = "bytes"
    delimiter: str | None = None
    columns: tuple[str, ...] = ()

    def __init__(self, path: Path, encoding: Encoding, known: CountRecognised, *, array: bool) -> None:
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
            raise SourceError(f"{path} has no rows: give one JSON object a line, or one array of objects")
        if not array and (isinstance(first, Reject) or len(start) == 1):
            self._document = self._rows_inside(known)
        if self._document:
            self.format["kind"] = "JSON document"
            return
        if not array and isinstance(first, Reject) and first.raw.strip() in ("{", "["):
            raise SourceError(f"{path} holds one JSON object over many lines: give one object a line (JSONL), or one array of objects")

    def rows(self, progress: RowProgress) -> Iterator[Row | Reject]:
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

    def _rows_inside(self, known: CountRecognised) -> list[dict[str, Any]]:
        with open_text(self._path, self._encoding) as (text, _):
            content = text.read(MAX_DOCUMENT + 1)
        try:
            documents = [value for value, _, _ in values_in(content.lstrip("\ufeff"))] if len(content) <= MAX_DOCUMENT else []
        except ValueError:
            return []
        if len(documents) > 1:
            # One after the other, each over many lines.
            return documents if all(isinstance(value, dict) for value in documents) else []
        document = documents[0] if documents else None
        return rows_inside(document, lambda row: known(list(row)) >= HAS_TITLE) if isinstance(document, dict) else []

    def _lines(self, text: TextIO, stream: ByteStream) -> Iterator[Row | Reject]:
        for number, line in enumerate(_bounded_lines(text), 1):
            if not line.strip("\ufeff" + BLANK):
                continue
            if len(line) > MAX_LINE:
                yield Reject(number, f"has more than {MAX_LINE:,} characters", line[:MAX_RAW])
                continue
            damaged = damage(line, self._encoding)
            if damaged and self._encoding.errors != "surrogateescape":
                yield Reject(number, damaged, line[:MAX_RAW])
                continue
            try:
                values = values_in(line.lstrip("\ufeff"))
            except ValueError as error:
                cut = not line.endswith(("\n", "\r"))
                end = "the file ends in the middle of this object: it looks cut off"
                yield Reject(number, end if cut else f"is not valid JSON: {error}", line[:MAX_RAW], cut)
                continue
            for value, raw, repaired in values:
                yield _object(number, value, raw, repaired)

    def _elements(self, text: TextIO) -> Iterator[Row | Reject]:
        # All before `at` was read. Only now and then is it cut off: for each element, that would copy the whole buffer.
        start, _, buffer = text.read(_PIECE).partition("[")
        number, margin, at = 1 + start.count("\n"), start.rpartition("\n")[2], 0
        while True:
            blank, at = at, end_of(_BETWEEN, buffer, at)
            number += buffer.count("\n", blank, at)
            if "\n" in buffer[blank:at]:
                margin = buffer[blank:at].rpartition("\n")[2]
            if at > _PIECE:
                buffer, at = buffer[at:], 0
            if buffer.startswith("]", at):
                at += 1
                while (end := end_of(BLANKS, buffer, at)) == len(buffer) and (more := text.read(_PIECE)):
                    number += buffer.count("\n", at)
                    buffer, at = more, 0
                number += buffer.count("\n", at, end)
                # Pages of a web service, one after the other.
                if buffer.startswith("[", end):
                    at = end + 1
                    continue
                if end < len(buffer):
                    reason = "stands after the end of the array: nothing from here on was read"
                    yield Reject(number, reason, buffer[end : end + MAX_RAW])
                return
            broken: int | None = None
            try:
                value, end, repaired = decode(buffer, at) if at < len(buffer) else (None, 0, None)
            except (ValueError, RecursionError) as error:
                value, end, repaired = None, 0, None
                broken = getattr(error, "pos", None)
            if end and (end < len(buffer) or buffer[at] == "{"):
                yield _object(number, value, buffer[at:end], repaired)
                number += buffer.count("\n", at, end)
                at = end
                continue
            # An element that starts its line, as this one did, is the next one; others may be parts of this one.
            following = -1 if broken is None or margin.strip() else buffer.find(f"\n{margin}{{", broken)
            if following > at:
                yield Reject(number, "is not valid JSON", buffer[at : at + MAX_RAW])
                number += buffer.count("\n", at, following)
                at = following
                continue
            # Twice as much each time: what is there is decoded anew.
            more = text.read(max(_PIECE, len(buffer) - at))
            if not more or len(buffer) - at > MAX_LINE:
                reason = "the array breaks off here: it looks cut off" if not more else "is not valid JSON, nothing after it can be read"
                yield Reject(number, reason, buffer[at : at + MAX_RAW], cut=True)
                return
            buffer, at = buffer[at:] + more, 0


def _bounded_lines(text: TextIO) -> Iterator[str]:
    """The lines of a text; of one that is longer than `MAX_LINE` its start."""
    while line := text.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(("\n", "\r")):
            line = text.readline(MAX_LINE + 1) or "\n"


def _object(number: int, value: Any, raw: str, repaired: str | None) -> Row | Reject:
    if not isinstance(value, dict):
        return Reject(number, f"holds {kind_of(value)}, not an object", raw[:MAX_RAW])
    values = plain_row(value)
    if HALF.search(raw):
        whole = {name: without_surrogates(entry) for name, entry in values.items()}
        values, repaired = whole, repaired or (REPAIRED if whole != values else None)
    return Row(number, values, repaired)
