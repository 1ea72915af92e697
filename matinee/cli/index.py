"""`matinee index`: the versions of the index, and the way back to the one before."""

import typer
from rich.markup import escape
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.cli.search import Catalogue, load, offline

index_app = typer.Typer(no_args_is_help=True, help="The versions of the index: list them, go back to the one before.")


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
