"""Dialects: how a delimited text file separates and quotes, and its rows, with damage kept to the rows that have it.

The dialect is chosen by parsing a sample in every candidate way. A quote that is never closed costs its own line, not the lines it would
swallow. Does not know what a column means: who asks says which headers it recognises.
"""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from matinee.catalogue.rows import MAX_RAW, ReadOptions, Reject
from matinee.errors import SourceError

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", "/": "slash", " / ": "slash"}
MAX_FIELD = 1 << 24
MAX_LINES = 1000
# No character, so that no text holds it: stands for an escaped quote while the rest is parsed.
_HIDDEN = "\ufdd0"


@dataclass(frozen=True)
class Dialect:
    """A way to write delimited text. `quote` is None where quotes mean nothing; `backslash` where \\" stands for a quote."""

    delimiter: str
    quote: str | None = '"'
    backslash: bool = False

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        csv.field_size_limit(MAX_FIELD)
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        if not self.backslash:
            return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)
        # Generators would end for good at the end of the lines, from where some of them may be put back; `map` goes on.
        hidden = map(self._hide, lines)
        return map(self._show, csv.reader(hidden, delimiter=self.delimiter, quotechar=self.quote, strict=True))

    def _hide(self, line: str) -> str:
        if "\\" not in line:
            return line
        return "\\".join(part.replace(f"\\{self.quote}", _HIDDEN) for part in line.split("\\\\"))

    def _show(self, cells: list[str]) -> list[str]:
        return [cell.replace(_HIDDEN, self.quote or "") for cell in cells]

    def looks_whole(self, line: str, width: int) -> bool:
        """Whether this line alone reads like a row, and not like prose that happens to hold delimiters."""
        try:
            cells = next(self.reader(iter([line])), [])
        except csv.Error:
            cells = line.rstrip("\r\n").split(self.delimiter)
        return len(cells) == width and not any(cell.startswith(" ") for cell in cells)


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """One record: its first line, its cells, and whether its last line has a line end."""

    line: int
    cells: list[str]
    raw: str
    ended: bool


class _Lines:
    """Physical lines that can be put back, and those that the present record has taken."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._back: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if len(self.taken) >= MAX_LINES:
            raise csv.Error("no closing quote")
        line = self._back.popleft() if self._back else next(self._source)
        self.taken.append(line)
        return line

    def put_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))


def records(source: Iterator[str], dialect: Dialect, width: int) -> Iterator[CsvRecord | Reject]:
    """Every record that is not blank; `width` is the number of columns that a whole row has."""
    lines = _Lines(source)
    reader = dialect.reader(lines)
    number = 1
    while True:
        taken: list[str] = []
        lines.taken = taken
        reason = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error)
        if reason is None and len(taken) > 1:
            place = _count_swallowed(dialect, taken, cells, width)
            reason = f"the quote opened here swallows line {number + place}, which looks like a row of its own" if place else None
        if reason is None:
            if cells:
                yield CsvRecord(number, cells, "".join(taken), taken[-1].endswith(("\n", "\r")))
            number += len(taken)
            continue
        if reason == "unexpected end of data" and not any(dialect.looks_whole(line, width) for line in taken[1:]):
            yield Reject(number, "the file ends inside a quoted field: it looks cut off", "".join(taken)[:MAX_RAW], cut=True)
            return
        lines.put_back(taken[1:])
        yield Reject(number, _explain(reason), taken[0][:MAX_RAW])
        number += 1


def _count_swallowed(dialect: Dialect, taken: list[str], cells: list[str], width: int) -> int:
    """Which of a record's lines after the first is a row of its own, 0 for none."""
    lines = list(enumerate(taken))[1:]
    if cells and ("\n" in cells[0] or "\r" in cells[0]):
        # The line that ends a broken first cell has all the delimiters of a row, so it proves nothing; the line that opens it does.
        if dialect.looks_whole(taken[0].replace(dialect.quote or "", "", 1), width) and width > 1:
            return 1
        lines.pop()
    return next((place for place, line in lines if dialect.looks_whole(line, width)), 0)


def _explain(reason: str) -> str:
    if reason.startswith("field larger"):
        return f"a cell has more than {MAX_FIELD:,} characters, or a quote opened here is never closed"
    if reason.startswith(("unexpected end", "no closing")):
        return "a quote opened here is never closed"
    return f"broken quoting: {reason}"


def sniff(sample: str, whole: bool, known: Callable[[list[str]], int], options: ReadOptions, where: str) -> Dialect:
    """The dialect of the sample, whose first record is the header. `known` scores a header by the columns it recognises."""
    first = sample.split("\n", 1)[0].rstrip("\r")
    delimiters = [options.delimiter] if options.delimiter else [first[4]] if is_hint(first) else list(DELIMITERS)
    text = sample.split("\n", 1)[1] if is_hint(first) and "\n" in sample else sample
    scores: dict[Dialect, tuple[int, float]] = {}
    for dialect in [style for delimiter in delimiters for style in _styles(delimiter, options)]:
        score = _score(text, whole, dialect, known)
        if score is not None:
            scores[dialect] = score
    if not scores:
        raise SourceError(f"{where}: the first line can't be read as a header in any usual dialect: pass --delimiter and --quote")
    best = max(scores, key=scores.__getitem__)
    rival = next((d for d in scores if d.delimiter != best.delimiter and scores[d] == scores[best]), None)
    if rival and scores[best][1] > 0:
        raise SourceError(
            f"{where}: {NAMES[best.delimiter]} and {NAMES[rival.delimiter]} fit equally well as its delimiter: pass --delimiter"
        )
    if scores[best][0] == 0 and scores[best][1] <= 0 and not options.delimiter:
        raise SourceError(f"{where}: no delimiter gives rows of equal length (tried comma, semicolon, tab, pipe): pass --delimiter")
    return best


def is_hint(line: str) -> bool:
    """Whether this is the line `sep=;` that spreadsheets write."""
    return len(line) == 5 and line.lower().startswith("sep=")


def _styles(delimiter: str, options: ReadOptions) -> list[Dialect]:
    quotes: list[str | None] = ['"', "'", None] if options.quote is None else [None if options.quote == "none" else options.quote]
    styles = []
    for quote in quotes:
        styles.append(Dialect(delimiter, quote))
        if quote:
            styles.append(Dialect(delimiter, quote, backslash=True))
    return styles


def _score(text: str, whole: bool, dialect: Dialect, known: Callable[[list[str]], int]) -> tuple[int, float] | None:
    rows: list[list[str]] = []
    errors = 0
    lines = list(io.StringIO(text, newline=""))
    header = next((r for r in records(iter(lines), dialect, 0) if isinstance(r, Reject) or any(map(str.strip, r.cells))), None)
    if not isinstance(header, CsvRecord):
        return None
    names = [cell.strip() for cell in trim(header.cells)]
    width = len(names)
    for record in records(iter(lines), dialect, width):
        if isinstance(record, Reject):
            errors += whole or not record.cut
        elif any(map(str.strip, record.cells)):
            rows.append(record.cells)
    if not whole and len(rows) > 2:
        rows.pop()
    body = rows[1:] or rows
    agree = sum(len(trim(row, width)) == width for row in body) / len(body) if width > 1 else 0.0
    cells = [cell for row in body[:200] for cell in row if len(cell) > 1]
    # Cells that are still wrapped in quotes were quoted in another way.
    wrapped = sum(cell[0] == cell[-1] and cell[0] in "\"'" for cell in cells) / len(cells) if cells else 0.0
    escaped = sum('\\"' in cell or "\\'" in cell for cell in cells) / len(cells) if cells else 0.0
    return known(names), round(agree - errors / (len(body) + errors) - wrapped - escaped, 4)


def trim(cells: list[str], width: int = 0) -> list[str]:
    """The cells without the empty ones at the end, but never fewer than `width`."""
    end = len(cells)
    while end > width and not cells[end - 1].strip():
        end -= 1
    return cells[:end]
