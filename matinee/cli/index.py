"""`matinee index`: the versions of the index, an empty first one, and the way back to the one before."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matinee.catalogue.declaration import read_declaration
from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.cli.search import Catalogue, Key, Url, load, offline
from matinee.client import calls
from matinee.client.http import Client

index_app = typer.Typer(no_args_is_help=True, help="The versions of the index: list them, make an empty first one, roll back.")


@index_app.command("list")
@explain_errors()
def index_list(as_json: Json = False, catalogue: Catalogue = None) -> None:
    """The finished versions, newest first; the current one is marked.

    [dim]matinee index list[/]
    """
    answer = offline(load(catalogue), catalogue).versions()
    if as_json:
        print_json(answer)
        return
    table = Table("", "version", "items", "recipe", "created", "source")
    for row in answer["versions"]:
        mark = "current" if row["version"] == answer["current"] else "previous" if row["version"] == answer["previous"] else ""
        table.add_row(mark, row["version"], str(row["count"]), row["recipe"], row["created"], escape(row["source"]))
    out.print(table)
    if not answer["versions"]:
        err.print("there is no version yet: build one with [bold]matinee ingest FILE[/]", highlight=False)


@index_app.command("create")
@explain_errors()
def index_create(
    attributes: Annotated[Path | None, typer.Option(help="YAML of what items can be filtered by")] = None,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a first, empty index on a running server, so that clients may write items. An ingest makes its own.

    [dim]matinee index create --attributes attributes.yaml[/]
    """
    server = Client.for_writing(load(catalogue), url, key, catalogue)
    declared = None if attributes is None else read_declaration(attributes, {})
    shown = None if declared is None else {name: one.model_dump(mode="json") for name, one in declared.items()}
    made = server.send(calls.create_index(shown))
    out.print(f"the catalogue {made['name']} has an empty index: write items to it", highlight=False)


@index_app.command("rollback")
@explain_errors()
def index_rollback(as_json: Json = False, catalogue: Catalogue = None) -> None:
    """Make the previous version current again. A running server follows within seconds; API writes are carried over.

    [dim]matinee index rollback[/]
    """
    answer = offline(load(catalogue), catalogue).rollback()
    if as_json:
        print_json(answer)
    else:
        out.print(f"current is now {answer['version']} ({answer['count']} items)", highlight=False)
