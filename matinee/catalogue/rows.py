"""Rows: what every kind of source gives before anything is understood, and how a source may be read.

Does not read files (`encodings`, `dialects`, `tables`) and does not know what a column means (`columns`).
"""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from matinee.errors import SourceError

DateOrder = Literal["dmy", "mdy", "ymd"]
MAX_RAW = 2000
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


def place(line: int, file: str) -> str:
    """A line as messages name it, with its file where there are several."""
    return f"line {line} of {file}" if file else f"line {line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `line` is the line in the file (in a table without lines, the row's number, from 1); `file` is its name in a folder.

    `repaired` is the damage that it was read in spite of: without it, the row would have been rejected. A value that is `bytes` is no text.
    """

    line: int
    values: dict[str, Any]
    repaired: str | None = None
    file: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return place(self.line, self.file)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can't be used. `cut` says that the source seems to end in its middle; `id` is the item's own, where it can be read."""

    line: int
    reason: str
    raw: str
    cut: bool = False
    id: str | None = None
    file: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return place(self.line, self.file)


@dataclass(frozen=True)
class ReadOptions:
    """Answers to what a file leaves open; None lets the reader find out, or ask in its error.

    `quote` is a quote character or "none"; `decimal` is "." or ","; two-digit years up to `pivot` are 20xx, those above 19xx.
    `strict` rejects a row for any value that can't be read, instead of leaving the value out.
    """

    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    date_order: DateOrder | None = None
    decimal: str | None = None
    pivot: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", NAMED_DELIMITERS.get(self.delimiter, self.delimiter))
            if len(str(self.delimiter)) != 1 or self.delimiter in "\r\n\"'\0":
                raise SourceError(f"--delimiter {self.delimiter!r} must be one character, such as , ; | or tab")
        if self.quote not in (None, '"', "'", "none"):
            raise SourceError(f"--quote {self.quote!r} must be \", ' or none")
        if self.date_order not in (None, "dmy", "mdy", "ymd"):
            raise SourceError(f"--date-order {self.date_order!r} must be dmy, mdy or ymd")
        if self.decimal not in (None, ".", ","):
            raise SourceError(f"--decimal {self.decimal!r} must be . or ,")
        if self.pivot is not None and not 0 <= self.pivot <= 99:
            raise SourceError(f"--pivot {self.pivot} must be between 0 and 99")
        if self.encoding is not None:
            _check_encoding(self.encoding)


class Table(Protocol):
    """A source that has been opened: rows that can be read again and again, always in the same order."""

    columns: tuple[str, ...]
    delimiter: str | None
    total: int
    unit: Literal["bytes", "rows"]
    notes: list[str]
    # How the source is written: its kind, encoding, delimiter, quotes.
    format: dict[str, str]

    def rows(self, progress: Callable[[int], None]) -> Iterator[Row | Reject]:
        """All rows from the start; `progress` gets how much of `total` is behind."""
        ...


def _check_encoding(name: str) -> None:
    try:
        text = codecs.lookup(name)._is_text_encoding
    except LookupError:
        text = False
    if not text:
        raise SourceError(f"--encoding {name!r} is unknown: use a name such as utf-8, cp1252, utf-16 or shift_jis")


def no_progress(done: int) -> None:
    """For passes that nobody watches."""
