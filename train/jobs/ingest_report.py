"""What an ingest understood of a catalogue and what it made, for people: columns, first items, rejected rows, warnings and counts."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from matinee.catalogue.proposal import MAX_DISTINCT, AttributeStats, changes, sort_for_display
from matinee.catalogue.reader import ItemReader, Report, write_rejects
from matinee.catalogue.rows import MAX_RAW, Reject
from matinee.index.build import Outcome
from matinee.index.vector_cache import CountingEncoder
from matinee.items import Item
from matinee.models.types import Encoder
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


def reject_failed(reader: ItemReader, outcome: Outcome, catalogue: str) -> None:
    """Add the items that a model failed at to the rejects. The source is read once more, for their lines."""
    if not outcome.failed:
        return
    reasons = {failed.id: failed.reason for failed in outcome.failed}
    rejects = []
    for item in reader:
        if (reason := reasons.get(item.uid(catalogue))) is not None and reader.row is not None:
            rejects.append(
                Reject(reader.row.line, reason, item.model_dump_json(exclude_defaults=True)[:MAX_RAW], id=item.id, file=reader.row.file)
            )
    report = reader.report
    report.items -= len(rejects)
    report.rejects += rejects
    first = f"{rejects[0].place}: {rejects[0].reason}"
    report.warnings.insert(0, f"{len(rejects)} items are not in the index, because a model failed at them; the first is on {first}")


def show_outcome(
    report: Report, outcome: Outcome, seconds: float, stats: Sequence[AttributeStats], encoder: Encoder, *, rejects: Path, as_json: bool
) -> None:
    """Write the rejects into the folder `rejects`, print the result, with `as_json` also on stdout, and say what comes next."""
    manifest = outcome.manifest
    if outcome.previous is not None:
        report.warnings += changes(outcome.previous.declared, manifest.declared)
    rows: dict[str, Any] = {
        "rows read": report.rows,
        "items in the index": manifest.count,
        "from the file": outcome.counts["file"],
        "kept from the API": outcome.counts["api"],
        "deleted through the API": outcome.counts["tombstones"],
        "API items discarded": outcome.counts["discarded"],
        "duplicates dropped": report.duplicates,
        "rejected": len(report.rejects),
    }
    if isinstance(encoder, CountingEncoder):
        rows |= {"texts encoded": encoder.encoded, "texts known from the last ingest": encoder.known}
    rows |= {
        "seconds": round(seconds, 1),
        "version": manifest.version,
        "recipe": manifest.recipe,
    }
    where = save_rejects(report, rejects) if report.rejects else None
    if as_json:
        more = {
            "rejects_file": None if where is None else str(where),
            "warnings": report.warnings,
            "understood": report.summary.as_json(),
            "attributes": [row.as_json() for row in stats],
        }
        sys.stdout.buffer.write(orjson.dumps(rows | more) + b"\n")
    table = Table(title=f"catalogue {manifest.catalogue}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    show(report)
    show_attributes(stats)
    show_warnings(report)
    if where is not None:
        command.echo(f"rejected rows, with line and reason: {where}")
    console.print("next: [bold]matinee search 'something you like'[/], or [bold]python -m serve[/] for the HTTP API", highlight=False)
