"""Dates: which year a column of dates means, decided over the whole column.

Only the year is used, so 03/04/2021 is no riddle: either order gives 2021. A riddle is 01/02/03, where the year may stand first or last,
and a two-digit year, which may belong to two centuries. What the column can't decide is an error that asks. Does not keep days or months.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any, Literal

from matinee import languages
from matinee.catalogue.cells import CellError, as_text, entry, is_nothing, is_placeholder
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError
from matinee.items import MAX_YEAR, MIN_YEAR

Position = Literal["first", "last"]

_PLACES: dict[Position, int] = {"first": 0, "last": 2}
_TAIL = r"(?:[T ,].*)?"
_YEAR = re.compile(r"(-?\d{3,4}|-\d{1,2})(?:\.0+)?")
_TWO = re.compile(r"'?(\d{1,2})(?:\.0+)?")
_FIRST = re.compile(rf"(\d{{4}})[-/.](\d{{1,2}})(?:[-/.](\d{{1,2}}))?{_TAIL}")
_LAST = re.compile(rf"(\d{{1,2}})[-/. ](\d{{1,2}})[-/. ](\d{{4}}){_TAIL}")
_MONTH_YEAR = re.compile(r"(\d{1,2})[-/.](\d{4})")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_SHORT = re.compile(rf"(\d{{1,2}})[-/. ](\d{{1,2}})[-/. ]'?(\d{{1,2}}){_TAIL}")
_SHORT_WORD = re.compile(r"(\d{1,2})[-/. ]+[^\W\d_]{3,10}\.?[-/., ]+'?(\d{2})")
_RANGE = re.compile(r"(\d{4})\s*+[-–—/]\s*+(?:\d{2,4}|\?|[^\W\d_]*+)\s*+")
# `(2010)`, `[1987?]`, `©1999`
_AROUND = " \t\n\r()[]<>{}?.,;:©®"
_ZERO = re.compile(r"0(?:\.0+)?")
# Where an object keeps its date, and the start of a span.
_KEYS = ("date", "value", "year", "from", "start", "begin", "release_date", "published", "time")
_ANY_YEAR = re.compile(r"(?<!\d)([12]\d{3})(?!\d)")
_WORDS = re.compile(r"(?=.*[^\W\d_])(?:\D|\d{1,2}(?!\d))*(?<!\d)[12]\d{3}(?!\d)(?:\D|\d{1,2}(?!\d))*")
# A catalogue that reaches back this many years behind the pivot may well reach behind it.
_REACH = 30


@dataclass(frozen=True)
class Dates:
    """How this column's years are read."""

    position: Position
    pivot: int
    # Whether the column has dates whose order matters, and years of two digits.
    short: bool = False

    def rules(self) -> dict[str, str]:
        if not self.short:
            return {"years": "four digits"}
        return {"year stands": self.position, "two-digit years": f"00-{self.pivot:02d} are 20xx"}

    def year(self, value: Any) -> int | None:
        """The year, or None where the cell is empty. Raises `CellError` where it holds no date."""
        value = _plain(value)
        if isinstance(value, date):
            return value.year
        text = _text(value)
        if not text:
            return None
        whole = _whole_year(text)
        if whole is not None:
            return whole or None
        two = _TWO.fullmatch(text)
        if two:
            return self._century(int(two[1]))
        short = _short(text)
        if short and _fits(short, self.position):
            return self._century(short[0] if self.position == "first" else short[2])
        raise CellError(f"{text[:80]!r} is not a date or a year")

    def id_year(self, value: Any) -> int | None:
        """The year that ids are derived from. Raises `CellError` where an earlier reader read none: such a row had no item.

        The year 0 was once read as one of two digits, and those ids stay.
        """
        if isinstance(value, date) or is_nothing(value):
            return self.year(value)
        text = as_text(value).strip() if isinstance(value, str | int | float) else ""
        year = self._century(0) if _ZERO.fullmatch(text) else self.year(value)
        plain = _one_year(text) is not None or _TWO.fullmatch(text) or _short(text)
        if not plain or (year is not None and not MIN_YEAR <= year <= MAX_YEAR):
            raise CellError(f"{text[:80]!r} was no year")
        return year

    def _century(self, two: int) -> int:
        return two + (2000 if two <= self.pivot else 1900)


@dataclass
class DateColumn:
    """What was seen in a column of dates."""

    name: str
    total: int = 0
    bad: int = 0
    flags: int = 0
    # Spellings that an earlier reader did not know: where they were most of a column, its years are no part of ids.
    odd: int = 0
    placeholders: int = 0
    zeros: int = 0
    count: int = 0
    fits: dict[Position, int] = field(default_factory=lambda: {"first": 0, "last": 0})
    years: dict[Position, set[int]] = field(default_factory=lambda: {"first": set(), "last": set()})
    plain: set[int] = field(default_factory=set)
    differs: str | None = None
    sample: str = ""

    def observe(self, value: Any) -> None:
        value = _plain(value)
        if isinstance(value, date):
            self.total += 1
            return
        text = _text(value)
        if not text:
            self.placeholders += is_placeholder(value) and not is_nothing(value)
            self.zeros += not is_placeholder(value)
            return
        self.total += 1
        if _one_year(text) is not None:
            return
        if _whole_year(text) is not None:
            self.odd += 1
            return
        two = _TWO.fullmatch(text)
        if two:
            # `published` and `released` are also the names of yes or no.
            self.flags += text in ("1", "1.0")
            self.plain.add(int(two[1]))
            self.sample = self.sample or text
            return
        short = _short(text)
        if short is None:
            self.bad += 1
            return
        self.count += 1
        self.sample = self.sample or text
        if short[0] != short[2]:
            self.differs = self.differs or text
        for position, place in _PLACES.items():
            if _fits(short, position):
                self.fits[position] += 1
                self.years[position].add(short[place])

    def is_flag(self) -> bool:
        """Whether the column says yes or no, and not when."""
        return self.total > 0 and self.flags == self.total

    def was_readable(self) -> bool:
        return self.odd + self.bad + self.placeholders <= (self.total + self.placeholders + self.zeros) / 2

    def decide(self, options: ReadOptions, warnings: list[str]) -> Dates:
        """The rule for this column. Raises `SourceError` where it could be read in two ways."""
        position = self._position(options)
        years = self.plain | (self.years[position] if self.count else set())
        pivot = options.pivot if options.pivot is not None else (date.today().year + 1) % 100
        if years and options.pivot is None:
            self._ask_century(years, pivot)
            warnings.append(
                f"column {self.name!r} has two-digit years ({self.sample!r}): 00-{pivot:02d} were read as 2000-20{pivot:02d}, "
                f"{pivot + 1:02d}-99 as 19{pivot + 1:02d}-1999; pass --pivot to change that"
            )
        return Dates(position, pivot, bool(years))

    def _position(self, options: ReadOptions) -> Position:
        if options.date_order:
            return "first" if options.date_order == "ymd" else "last"
        first, last = self.fits["first"], self.fits["last"]
        if max(first, last) < self.count * 0.95 or (min(first, last) > 0 and max(first, last) < self.count):
            raise SourceError(
                f"column {self.name!r} mixes dates with the year first and last (such as {self.differs!r}): "
                "pass --date-order dmy, mdy or ymd; the dates that don't fit are then left out"
            )
        if first == last and self.count and self.differs:
            raise SourceError(
                f"column {self.name!r} has dates such as {self.differs!r}, whose year may stand first or last: "
                "pass --date-order dmy, mdy or ymd"
            )
        return "first" if first > last else "last"

    def _ask_century(self, years: set[int], pivot: int) -> None:
        near = sorted(year for year in years if pivot < year <= pivot + _REACH)
        low = sorted(year for year in years if year <= pivot)
        if near and low:
            raise SourceError(
                f"column {self.name!r} has two-digit years: {near[0]:02d} must be 19{near[0]:02d}, but {low[-1]:02d} may be "
                f"19{low[-1]:02d} or 20{low[-1]:02d}: pass --pivot {pivot} (00-{pivot:02d} are 20xx), another pivot, or write four digits"
            )


@cache
def _span() -> re.Pattern[str]:
    """Between the two ends of a span: `Oct 1998 to Apr 1999`, `2019-01-01/2019-12-31`."""
    words = "|".join(map(re.escape, languages.catalogue_words().span_words))
    return re.compile(rf" (?:{words}|-) ?|[–—/]|\.\.|[,;] ?[cp©](?=\d{{4}})")


@cache
def _circa() -> re.Pattern[str]:
    """Before a year: `c1999`, `[ca. 1850]`."""
    words = "|".join(map(re.escape, languages.catalogue_words().circa_words))
    return re.compile(rf"\A(?:{words}|©)\.? ?(?=\d{{4}})", re.IGNORECASE)


def _plain(value: Any) -> Any:
    """The date that an object holds, or the first of a list."""
    while isinstance(value, Mapping | list | tuple) and value:
        value = entry(value, _KEYS) if isinstance(value, Mapping) else value[0]
    return value


def _text(value: Any) -> str:
    """What is written in a cell, "" where that is nothing, also where it is the year 0."""
    text = "" if is_placeholder(value) else as_text(value).strip()
    return "" if _ZERO.fullmatch(text) else text


def _whole_year(text: str) -> int | None:
    """The year where it is written out, the first one of a span, 0 for the zero date of some databases, None where it is not."""
    year = _one_year(text)
    if year is not None:
        return year
    plain = _circa().sub("", text.strip(_AROUND))
    span = _span().search(plain)
    if span is None:
        return _one_year(plain) if plain != text else None
    first, last = plain[: span.start()].strip(_AROUND), plain[span.end() :].strip(_AROUND)
    ends = not last or last.isalpha() or _one_year(last) is not None
    return _one_year(first) if ends else None


def _one_year(text: str) -> int | None:
    match = _YEAR.fullmatch(text) or _RANGE.fullmatch(text)
    if match:
        return int(match[1])
    for pattern, year, others in ((_FIRST, 1, (2, 3)), (_COMPACT, 1, (2, 3)), (_LAST, 3, (1, 2))):
        match = pattern.fullmatch(text)
        if match:
            parts = [int(match[place] or 1) for place in others]
            return int(match[year]) if min(parts) <= 12 and max(parts) <= 31 else None
    match = _MONTH_YEAR.fullmatch(text)
    if match:
        return int(match[2]) if int(match[1]) <= 12 else None
    if _WORDS.fullmatch(text):
        return int(_ANY_YEAR.findall(text)[0])
    return None


def _short(text: str) -> tuple[int, int, int] | None:
    match = _SHORT.fullmatch(text)
    if match:
        return int(match[1]), int(match[2]), int(match[3])
    match = _SHORT_WORD.fullmatch(text)
    return (int(match[1]), 0, int(match[2])) if match else None


def _fits(parts: tuple[int, int, int], position: Position) -> bool:
    """Whether the other two can be day and month; a middle 0 is a month's name."""
    first, middle, last = parts
    if position == "first":
        return middle <= 12 and 1 <= last <= 31
    return (1 <= first <= 31 and middle <= 12) or (1 <= first <= 12 and 1 <= middle <= 31)
