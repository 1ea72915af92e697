"""What a reader understood of a catalogue, for people: columns and how they are read, the first items, rejected rows and warnings."""

from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.markup import escape
from rich.table import Table

from matinee.catalogue.proposal import MAX_DISTINCT, AttributeStats, sort_for_display
from matinee.catalogue.reader import Report, write_rejects
from matinee.items import Item
from train.jobs import command
from train.jobs.command import console

SHOWN = 3
"""Items that a dry run shows."""


def show(report: Report) -> None:
    """Print how the source is written and what each column became."""
    summary = report.summary
    written = ", ".join(f"{name}: {value}" for name, value in summary.format.items())
    table = Table(title=escape(f"read as {written}"), title_justify="left")
    for name, right in (("column", False), ("became", False), ("how", False), ("read", True), ("empty", True), ("left out", True)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    table.add_column("example", no_wrap=True, overflow="ellipsis", max_width=30)
    for field in summary.fields.values():
        how = ", ".join(f"{name} {value}" for name, value in field.rules.items())
        counts = map(str, (field.read, field.empty, field.left_out))
        table.add_row(*map(escape, (field.column, field.target or "not used", how, *counts, field.example or "")))
    console.print(table)
    if summary.years:
        command.echo(f"years from {summary.years[0]} to {summary.years[1]}")


def show_attributes(rows: Sequence[AttributeStats]) -> None:
    """Print what items can be filtered by, and which of their facts they can't."""
    table = Table(title="attributes: what items can be filtered, sorted and counted by", title_justify="left")
    for name, right in (("attribute", False), ("type", False), ("from", False), ("facet", False), ("missing", True), ("different", True)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    table.add_column("not of its type", justify="right")
    table.add_column("example", no_wrap=True, overflow="ellipsis", max_width=30)
    for row in sort_for_display(rows):
        share = f"{row.missing / row.items:.0%}" if row.items else ""
        different = f"{row.distinct:,}{'+' if row.distinct == MAX_DISTINCT else ''}"
        if row.attribute is None:
            table.add_row("none", "", escape(row.source), "", share, different, "", escape(row.example))
            continue
        type = row.attribute.type + (", many" if row.attribute.many else "")
        facet = "yes" if row.attribute.facet else ""
        table.add_row(row.name, type, escape(row.source), facet, share, different, str(row.unread or ""), escape(row.example))
    console.print(table)


def show_items(items: Sequence[Item]) -> None:
    """Print items as they would be stored."""
    for item in items:
        console.print_json(orjson.dumps(item.facts()).decode())


def save_rejects(report: Report, folder: Path) -> Path | None:
    """The file of the rejected rows. Where it can't be written, the index is there all the same, and a warning says what was rejected."""
    try:
        return write_rejects(report, folder)
    except OSError as error:
        first = report.rejects[0]
        report.warnings.append(
            f"the rejected rows could not be written to {folder.absolute()} ({error.strerror}): name another folder with --rejects; "
            f"the first is on {first.place}: {first.reason}"
        )
        return None


def show_warnings(report: Report) -> None:
    for warning in report.warnings:
        command.echo(("warning", "yellow"), f": {warning}")
