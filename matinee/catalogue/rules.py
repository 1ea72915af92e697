"""Rules of columns: how a table's rows are read, and the same kept, so that a few of them can be read in the same way later.

What is learned from all rows (separators, decimal signs, which columns hold numbers) can't be learned again from three of them.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from matinee.catalogue.dates import Dates
from matinee.catalogue.summary import Summary


@dataclass
class ReadingRules:
    """How the columns of a table are read, and what was seen of them."""

    strict: bool = False
    dates: dict[str, Dates] = field(default_factory=dict)
    signs: dict[str, str] = field(default_factory=dict)
    separators: dict[str, str | None] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)


class ColumnRules(BaseModel):
    """What a `Builder` knows of the columns of one table, as JSON can hold it. `columns` are all of them, used or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    targets: dict[str, str]
    kind: str | None
    strict: bool
    id_years: str | None
    other_titles: tuple[str, ...]
    dates: dict[str, Dates]
    signs: dict[str, str]
    separators: dict[str, str | None]
