"""Numerals: how a column writes its numbers, decided over the whole column and, where that fails, over the whole file.

'8,3' shows a decimal comma and '1,234.5' a decimal point; '1,234' alone may be either and is an error that asks. Does not know units,
currencies or percents: a column of those is text.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from matinee.catalogue.cells import CellError, is_placeholder, number_of
from matinee.errors import SourceError, kind_of
from matinee.items import MAX_NUMBER

Shape = Literal["integer", "point", "comma", "either point", "either comma", "points", "commas", "other"]

_GAPS = re.compile(r"(?<=\d)[ \u00a0\u202f'’](?=\d{3})")
_SHAPES: tuple[tuple[Shape, re.Pattern[str]], ...] = (
    ("integer", re.compile(r"[+-]?(?:0|[1-9]\d*)")),
    ("either comma", re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")),
    ("either point", re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")),
    ("point", re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?")),
    ("commas", re.compile(r"[+-]?\d{1,3}(?:,\d{3}){2,}")),
    ("point", re.compile(r"[+-]?\d{1,3}(?:,\d{3})+\.\d+")),
    ("comma", re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")),
    ("points", re.compile(r"[+-]?\d{1,3}(?:\.\d{3}){2,}")),
    ("comma", re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+")),
)
# The shapes that can't be read with a decimal sign. `points` are groups of three, several of them: 5.083.954.
_FOREIGN: dict[str, tuple[Shape, ...]] = {".": ("comma", "points", "other"), ",": ("point", "commas", "other")}
_CODE = re.compile(r"[+-]?0\d+")


def shape(text: str) -> Shape:
    """What kind of numeral this is; a code such as 007 is none."""
    if _CODE.fullmatch(text):
        return "other"
    return next((name for name, pattern in _SHAPES if pattern.fullmatch(text)), "other")


def number(value: Any, decimal: str) -> float | None:
    """The number, or None where the cell is empty. Raises `CellError` where it is no number under this decimal sign."""
    value = number_of(value)
    if is_placeholder(value):
        return None
    if isinstance(value, bool):
        raise CellError(f"{value} is not a number")
    if isinstance(value, str):
        text = _GAPS.sub("", value.strip())
        if shape(text) in _FOREIGN[decimal]:
            raise CellError(f"{value.strip()[:80]!r} is not a number with the decimal sign {decimal!r}")
        parsed = float(text.replace(",", "") if decimal == "." else text.replace(".", "").replace(",", "."))
    elif isinstance(value, int | float | Decimal):
        parsed = _float(value)
    else:
        raise CellError(f"holds {kind_of(value)}, not a number")
    if not abs(parsed) <= MAX_NUMBER:
        raise CellError(f"{str(value)[:80]} is beyond {MAX_NUMBER:g}")
    return parsed


def _float(value: float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


@dataclass
class NumberColumn:
    """What was seen in a column that may hold numbers."""

    name: str
    shapes: Counter[Shape] = field(default_factory=Counter)
    # Whether an object may stand for the number in it: only where the column's name promises a number.
    objects: bool = False
    samples: dict[Shape, str] = field(default_factory=dict)

    def observe(self, value: Any) -> None:
        value = number_of(value) if self.objects else value
        if is_placeholder(value):
            return
        kind: Shape = "other"
        if isinstance(value, str):
            text = value.strip()
            kind = shape(_GAPS.sub("", text))
            # Such as the ids of a social network: no number that anything is counted by, and too long to be kept as one.
            if kind == "integer" and len(text) > 15 and abs(int(text[:400])) > MAX_NUMBER:
                kind = "other"
            self.samples.setdefault(kind, text)
        elif isinstance(value, int | float | Decimal) and not isinstance(value, bool) and abs(_float(value)) <= MAX_NUMBER:
            kind = "integer"
        self.shapes[kind] += 1

    def share(self) -> float:
        """How many of the cells are numbers; 0 for an empty column."""
        total = self.shapes.total()
        return 1 - self.shapes["other"] / total if total else 0.0

    def evidence(self) -> str | None:
        """The decimal sign that this column shows, None where it shows none. Raises `SourceError` where it shows both."""
        points, commas = self.shapes["point"], self.shapes["comma"]
        if min(points, commas) > 0.01 * (points + commas):
            raise SourceError(
                f"column {self.name!r} mixes decimal points ({self.samples['point']!r}) and decimal commas ({self.samples['comma']!r}): "
                "pass --decimal . or --decimal , and the numbers that don't fit are left out"
            )
        if points == commas:
            # Several groups in a number tell the sign too, if no number has decimals. Beside decimals of the same sign they are damage.
            points, commas = self.shapes["commas"], self.shapes["points"]
        return None if points == commas else "." if points > commas else ","

    def decide(self, hint: str | None, delimiter: str | None) -> str:
        """The decimal sign. Raises `SourceError` where neither the column nor the rest of the file shows it."""
        sign = self.evidence() or hint
        if sign:
            return sign
        # A point in a comma-separated file is what programs write; elsewhere it may group thousands.
        ambiguous: tuple[Shape, ...] = ("either comma",) if delimiter in (None, ",") else ("either comma", "either point")
        for kind in ambiguous:
            if self.shapes[kind]:
                text = self.samples[kind]
                digits = re.sub(r"[.,]", "", text)
                raise SourceError(
                    f"column {self.name!r} has numbers such as {text!r}, which may mean {digits} or {text.replace(',', '.')}: "
                    "pass --decimal . or --decimal ,"
                )
        return "."
