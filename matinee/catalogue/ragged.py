"""Ragged rows: rows of delimited text with more or fewer cells than the header, where the whole rows show what they mean.

A row that can mean several things is left as it is. Does not read files, and knows columns by their places alone.
"""

import re
from collections.abc import Iterable, Sequence

SHORT = "fewer cells than the header; those missing at the end were taken as empty"
LONG = "the delimiter inside a text without quotes; the parts were joined"
# Numbers, dates, codes of digits.
_FIGURES = re.compile(r"[.,:/+\-TZXx ]*+\d[\d.,:/+\-TZXx ]*+")


class Ragged:
    """What the whole rows of a table show: which columns hold figures alone, and whether cells begin with a space."""

    def __init__(self, rows: Iterable[Sequence[str]], width: int, delimiter: str) -> None:
        self._width, self._delimiter = width, delimiter
        self._spaced = False
        filled, figures = [0] * width, [0] * width
        for cells in rows:
            self._spaced = self._spaced or any(cell.startswith(" ") for cell in cells)
            for place, cell in enumerate(cells):
                filled[place] += bool(cell)
                figures[place] += _FIGURES.fullmatch(cell) is not None
        self._figures = [place for place in range(width) if filled[place] and figures[place] == filled[place]]

    def join(self, cells: Sequence[str]) -> list[str] | None:
        """A longer row with the parts of its texts joined, None where that is ambiguous: `Bo Kim, Jr.` goes on with a space."""
        parts: list[list[str]] = []
        for cell in cells:
            if parts and cell.startswith(" "):
                parts[-1].append(cell)
            else:
                parts.append([cell])
        joined = [self._delimiter.join(part) for part in parts]
        return joined if not self._spaced and len(joined) == self._width and self._fits(joined) else None

    def may_end_early(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether these shorter rows, one after the other, are rows without their last cells, and not pieces of broken ones.

        Spreadsheets leave out empty cells at the end of rows. A piece of a row has texts where the whole rows have figures.
        """
        return all(any(place < len(cells) and cells[place] for place in self._figures) and self._fits(cells) for cells in rows)

    def _fits(self, cells: Sequence[str]) -> bool:
        return all(not cells[place] or _FIGURES.fullmatch(cells[place]) for place in self._figures if place < len(cells))
