"""`matinee items`: items of a running server, one or many."""

import gzip
import json
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.cli.search import Catalogue, Key, Url, Where, load
from matinee.client.http import Client
from matinee.client.items import Items
from matinee.errors import SourceError
from matinee.index.imports import ImportState, Uploaded
from matinee.index.progress import BuildState

items_app = typer.Typer(no_args_is_help=True, help="Items of a running server: read, write, change, delete and import them.")

_LOOK_S = 1.0
_SHOWN = 10

Id = Annotated[str, typer.Argument(help="the catalogue's own id, or the index id")]
Lines = Annotated[str, typer.Argument(metavar="FILE", help="items as JSON, one a line, also .gz; - reads them from stdin")]


@items_app.command("get")
@explain_errors()
def get(id: Id, catalogue: Catalogue = None, url: Url = None, key: Key = None) -> None:
    """Print an item as the index holds it.

    [dim]matinee items get my-film-1[/]
    """
    print_json(_items(url, key, catalogue).get(id).model_dump(mode="json", exclude_defaults=True))


@items_app.command("put")
@explain_errors()
def put(file: Lines, as_json: Json = False, catalogue: Catalogue = None, url: Url = None, key: Key = None) -> None:
    """Add or replace items, and wait until all are written.

    [dim]matinee items put new-films.jsonl[/]
    """
    _show(_items(url, key, catalogue).put(_lines(file)), as_json)


@items_app.command("patch")
@explain_errors()
def patch(
    id: Id,
    facts: Annotated[str, typer.Argument(metavar="JSON", help="the facts to change; null removes one")],
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Change facts of an item; the others stay.

    [dim]matinee items patch my-film-1 '{"numbers": {"rating": 8.4}}'[/]
    """
    changes = _object(facts, "JSON", '{"year": 1999}')
    print_json(_items(url, key, catalogue).patch(id, changes).model_dump(mode="json", exclude_defaults=True))


@items_app.command("delete")
@explain_errors()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="the catalogue's own ids, or index ids")] = None,
    where: Where = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="delete nothing: say which items would be deleted")] = False,
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Delete items by their ids, all or none, or all items that pass a filter. A later ingest of the file does not bring them back.

    [dim]matinee items delete my-film-1 my-film-2 --dry-run[/]
    [dim]matinee items delete --filter '{"year": {"lt": 1930}}' --dry-run[/]
    """
    if bool(ids) == (where is not None):
        raise typer.BadParameter("name items by their ids, or give --filter")
    items = _items(url, key, catalogue)
    if where is not None:
        answer = items.delete_matching(_object(where, "--filter", '{"year": {"lt": 1930}}'), dry_run=dry_run)
    else:
        answer = items.delete(ids or [], dry_run=dry_run)
    if as_json:
        print_json(answer.model_dump())
    else:
        count = f"more than {answer.count}" if answer.more else str(answer.count)
        out.print(f"{count} items {'would be' if dry_run else 'are'} deleted", highlight=False)
        if answer.unknown:
            err.print(f"no item has the id {escape(', '.join(answer.unknown))}", highlight=False)


@items_app.command("import")
@explain_errors()
def import_items(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URI", help="items as JSON, one a line, also .gz; - reads stdin; the server itself reads s3:// or https://"
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait for its end, or print its id at once")] = True,
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send items to be written in the background. The import goes on if this command or the server is stopped.

    [dim]matinee items import films.jsonl.gz[/]
    """
    items = _items(url, key, catalogue)
    state = items.start_remote_import(file) if "://" in file else items.start_import(_lines(file))
    if wait and not as_json:
        err.print(f"import {state.id}: {state.total} lines are stored; Ctrl-C ends the waiting only", highlight=False)
    with err.status("importing") as status:
        while wait and not state.is_over:
            time.sleep(_LOOK_S)
            state = items.import_state(state.id)
            left = "" if state.left_s is None else f", {state.left_s:.0f} s left"
            status.update(f"{state.lines} of {state.total} lines{left}{f': {escape(state.trouble)}' if state.trouble else ''}")
    _show(state, as_json)


@items_app.command("imports")
@explain_errors()
def imports(as_json: Json = False, catalogue: Catalogue = None, url: Url = None, key: Key = None) -> None:
    """List the imports that are open, and the last ones that are over.

    [dim]matinee items imports[/]
    """
    items = _items(url, key, catalogue)
    states, build = items.imports(), items.build()
    if as_json:
        print_json([state.model_dump() for state in states])
        return
    table = Table("id", "status", "lines", "written", "skipped", "rejected", "created", "trouble")
    for state in states:
        lines = f"{state.lines} of {state.total}"
        counts = (str(state.written), str(state.skipped), str(state.rejected))
        table.add_row(state.id, state.status, lines, *counts, state.created, escape(state.trouble or ""))
    out.print(table)
    if build is not None:
        out.print(f"an ingest is under way: {escape(_build_text(build))}", highlight=False)


def _build_text(build: BuildState) -> str:
    of = "" if build.total is None else f" of {build.total:,}"
    left = "" if build.left_s is None else f", {build.left_s:.0f} s left"
    return f"{build.source}, {build.items:,}{of} items{left} ({build.stage})"


@items_app.command("cancel")
@explain_errors()
def cancel(
    id: Annotated[str, typer.Argument(help="the id of an import")],
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Cancel an import. What it has written stays.

    [dim]matinee items cancel 1f0c...[/]
    """
    _show(_items(url, key, catalogue).cancel_import(id), as_json)


def _object(text: str, name: str, example: str) -> dict[str, Any]:
    """A JSON object of the command line."""
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{name}: write an object, such as '{example}'")
    return value


def _items(url: str | None, key: str | None, catalogue: str | None) -> Items:
    return Items(Client.for_writing(load(catalogue), url, key, catalogue))


def _lines(file: str) -> Iterator[bytes]:
    if file == "-":
        yield from sys.stdin.buffer
        return
    try:
        with gzip.open(file, "rb") if file.endswith(".gz") else Path(file).open("rb") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{file} is not a complete gzip file ({error}): fetch it again") from None


def _show(done: Uploaded | ImportState, as_json: bool) -> None:
    if as_json:
        print_json(done.model_dump())
        return
    status = f"import {done.id} is {done.status}: " if isinstance(done, ImportState) else ""
    skipped = (
        f", {done.skipped} skipped: their items were written or deleted since" if isinstance(done, ImportState) and done.skipped else ""
    )
    out.print(f"{status}{done.written} of {done.lines} lines written, {done.rejected} rejected{skipped}", highlight=False)
    for reject in done.rejects[:_SHOWN]:
        err.print(f"line {reject.line}: {escape(reject.reason)}", highlight=False)
    if len(done.rejects) > _SHOWN:
        err.print(f"and {done.rejected - _SHOWN} more: --json lists them", highlight=False)
