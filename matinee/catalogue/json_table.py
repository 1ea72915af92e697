"""JSON tables: JSON Lines, an array of objects that is read piece by piece, or one object that holds the rows.

Values come as programs write them, also where JSON has no form for them. Does not know what a key means.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson

from matinee.catalogue.columns import HAS_TITLE
from matinee.catalogue.documents import rows_inside
from matinee.catalogue.encodings import BLANK, SAMPLE, ByteStream, Encoding, damage, open_text
from matinee.catalogue.rows import MAX_RAW, Reject, Row, no_progress
from matinee.catalogue.typed import HALF, mend, plain_row
from matinee.errors import SourceError

Progress = Callable[[int], None]
Known = Callable[[list[str]], int]

MAX_LINE = 1 << 24
# Characters of a JSON object that holds all rows: it is read whole.
MAX_DOCUMENT = 1 << 27
MENDED = "characters that JSON has no form for; they were repaired or left out"
SEVERAL = "other objects on their line; each was read"
_STRICT = json.JSONDecoder()
# Control characters may stand in a string, where they are repaired like in any other text.
_LENIENT = json.JSONDecoder(strict=False)
_LONG_INTEGER = re.compile(r"\d{19}")


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
            found = [value for value, _ in _values(content.lstrip("\ufeff"))] if len(content) <= MAX_DOCUMENT else []
        except ValueError:
            return []
        if len(found) > 1:
            # One after the other, each over many lines.
            return found if all(isinstance(value, dict) for value in found) else []
        document = found[0] if found else None
        return rows_inside(document, lambda row: known(list(row)) >= HAS_TITLE) if isinstance(document, dict) else []

    def _lines(self, text: Iterator[str], stream: ByteStream) -> Iterator[Row | Reject]:
        for number, line in enumerate(text, 1):
            if not line.strip("\ufeff" + BLANK):
                continue
            damaged = damage(line, self._encoding)
            if damaged and self._encoding.errors != "surrogateescape":
                yield Reject(number, damaged, line[:MAX_RAW])
                continue
            try:
                found = _values(line.lstrip("\ufeff"))
            except ValueError as error:
                cut = not line.endswith(("\n", "\r"))
                end = "the file ends in the middle of this object: it looks cut off"
                yield Reject(number, end if cut else f"is not valid JSON: {error}", line[:MAX_RAW], cut)
                continue
            for value, mended in found:
                yield _object(number, value, line, mended)

    def _elements(self, text: Any) -> Iterator[Row | Reject]:
        start, _, buffer = text.read(SAMPLE).partition("[")
        number, margin = 1 + start.count("\n"), start.rpartition("\n")[2]
        while True:
            skipped = len(buffer) - len(buffer.lstrip(" \t\r\n,"))
            number += buffer.count("\n", 0, skipped)
            if "\n" in buffer[:skipped]:
                margin = buffer[:skipped].rpartition("\n")[2]
            buffer = buffer[skipped:]
            if buffer.startswith("]"):
                rest = buffer[1:]
                while not rest.strip(BLANK) and (more := text.read(SAMPLE)):
                    rest += more
                buffer = rest.lstrip(BLANK)
                number += rest.count("\n", 0, len(rest) - len(buffer))
                # Pages of a web service, one after the other.
                if buffer.startswith("["):
                    buffer = buffer[1:]
                    continue
                if buffer:
                    yield Reject(number, "stands after the end of the array: nothing from here on was read", buffer[:MAX_RAW])
                return
            broken: int | None = None
            try:
                value, end, mended = _decode(buffer) if buffer else (None, 0, None)
            except (ValueError, RecursionError) as error:
                value, end, mended = None, 0, None
                broken = getattr(error, "pos", None)
            if end and (end < len(buffer) or buffer[0] == "{"):
                yield _object(number, value, buffer[:end], mended)
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


def _values(text: str) -> list[tuple[Any, str | None]]:
    """The values of a text, one after the other, and what was mended in each. Raises `ValueError`."""
    reason: ValueError | None = None
    # orjson would round long integers, and two ids would be one.
    if not _LONG_INTEGER.search(text):
        try:
            return [(orjson.loads(text), None)]
        except orjson.JSONDecodeError as error:
            reason = error
    found: list[tuple[Any, str | None]] = []
    rest = text.strip(BLANK)
    try:
        while rest:
            value, end, mended = _decode(rest)
            found.append((value, mended))
            rest = rest[end:].lstrip(BLANK)
    except (ValueError, RecursionError) as error:
        raise reason or ValueError(str(error)) from None
    return found if len(found) == 1 else [(value, mended or SEVERAL) for value, mended in found]


def _decode(text: str) -> tuple[Any, int, str | None]:
    """The value at the start of a text, where it ends, and what only a lenient reader takes.

    Raises `ValueError` or `RecursionError`. NaN and numbers of any size are no damage: many programs write them, though JSON has none.
    """
    try:
        return *_STRICT.raw_decode(text), None
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Invalid control character"):
            raise
    return *_LENIENT.raw_decode(text), MENDED


def _object(number: int, value: Any, raw: str, mended: str | None) -> Row | Reject:
    if not isinstance(value, dict):
        return Reject(number, f"holds a {type(value).__name__}, not an object", raw[:MAX_RAW])
    values = plain_row(value)
    if HALF.search(raw):
        whole = {name: mend(entry) for name, entry in values.items()}
        values, mended = whole, mended or (MENDED if whole != values else None)
    return Row(number, values, mended)
