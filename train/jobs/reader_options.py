"""The options of every command that reads a catalogue: those that the reader's errors name."""

from dataclasses import dataclass, field, fields
from typing import Annotated

import typer

from matinee.catalogue.reader import ItemReader, ReadOptions, read_items
from matinee.catalogue.rules import ColumnRules
from train.jobs import command


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How a catalogue file is read, where the reader can't tell."""

    kind: Annotated[str | None, typer.Option(help="what the items are (film, book, ...), where rows don't say")] = None
    map: Annotated[list[str], typer.Option(metavar="FIELD=COLUMN", help="which column holds a field, e.g. overview=Plot; repeatable")] = (
        field(default_factory=list)
    )
    delimiter: Annotated[str | None, typer.Option(help="column separator of a CSV file, where it is ambiguous")] = None
    quote: Annotated[str | None, typer.Option(help="quote character, or none")] = None
    encoding: Annotated[str | None, typer.Option(help="text encoding, e.g. utf-8, cp1252")] = None
    date_order: Annotated[str | None, typer.Option(help="dmy, mdy or ymd, where dates can be read in two ways")] = None
    decimal: Annotated[str | None, typer.Option(help="decimal sign: . or ,")] = None
    pivot: Annotated[int | None, typer.Option(help="two-digit years up to this one are 20xx")] = None

    strict: Annotated[bool, typer.Option("--strict", help="reject a row for any value that can't be read, instead of leaving it out")] = (
        False
    )

    def read(self, source: str, rules: ColumnRules | None = None) -> ItemReader:
        arguments = (self.delimiter, self.quote, self.encoding, self.date_order, self.decimal, self.pivot, self.strict)
        dialect = ReadOptions(*arguments)  # type: ignore[arg-type]
        return read_items(source, mapping=command.column_map(self.map), kind=self.kind, options=dialect, rules=rules)

    def settings(self) -> dict[str, object]:
        """What decides the items that are read: `kind` and `map` always, the others where they are given."""
        options = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("kind", "map")}
        return {"kind": self.kind, "map": sorted(self.map)} | {
            name: value for name, value in options.items() if value is not None and value is not False
        }


DEFAULTS = ReaderOptions()
"""Nothing is said: the reader tells everything itself, or asks."""
