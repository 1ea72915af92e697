"""`matinee catalogues`: the catalogues of a server, or of this machine while none runs: list, create and delete them."""

import asyncio
from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from matinee.catalogue.declaration import read_declaration
from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.cli.search import Key
from matinee.client import calls
from matinee.client.calls import CatalogueReport
from matinee.client.http import Client
from matinee.errors import SettingsError
from matinee.index import catalogues as local
from matinee.index.catalogues import ClosedCatalogue
from matinee.index.registry import CatalogueRecord, SearchChanges
from matinee.patterns import message_of
from matinee.settings.index import Recipe
from matinee.settings.load import load_settings
from matinee.settings.tree import Mode

catalogues_app = typer.Typer(no_args_is_help=True, help="The catalogues of a server: list, create and delete them.")

CatalogueArgument = Annotated[str, typer.Argument(help="lower-case letters, digits, - and _, beginning with a letter")]
Server = Annotated[
    str | None,
    typer.Option("--server", "--url", envvar="MATINEE_URL", help="a server to ask; by default the one that runs here, or the index"),
]


@catalogues_app.command("list")
@explain_errors()
def list_all(as_json: Json = False, server: Server = None, key: Key = None) -> None:
    """The catalogues, the default one first.

    [dim]matinee catalogues list[/]
    """
    settings = load_settings()
    client = Client(server, key=key) if server else Client.running(settings, key=key)
    if client is None:
        rows = [_report(one) for one in asyncio.run(local.list_catalogues(settings))]
    else:
        rows = client.send(calls.catalogues())["catalogues"]
    if as_json:
        print_json(rows)
        return
    table = Table("", "name", "state", "items", "attributes", "kind", "version")
    for row in rows:
        mark, items = "default" if row["default"] else "", "" if row["items"] is None else str(row["items"])
        table.add_row(mark, row["name"], row["state"], items, str(row["attributes"]), escape(row["kind"] or ""), row["version"] or "")
    out.print(table)


@catalogues_app.command("create")
@explain_errors()
def create(
    name: CatalogueArgument,
    kind: Annotated[str | None, typer.Option(help="what its items are, such as film, where an ingest does not say")] = None,
    recipe: Annotated[str | None, typer.Option(help="text that is embedded: raw, enhanced or both")] = None,
    attributes: Annotated[Path | None, typer.Option(help="YAML of what its items can be filtered by")] = None,
    mode: Annotated[str | None, typer.Option(help="how it is searched where a request does not say: dense, sparse or hybrid")] = None,
    max_k: Annotated[int | None, typer.Option(min=1, max=1000, help="most items in an answer")] = None,
    as_json: Json = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Create a catalogue. On a server it takes items at once; without one, ingest a file under its name next.

    [dim]matinee catalogues create books --kind book[/]
    """
    settings = load_settings()
    declared = None if attributes is None else read_declaration(attributes, {})
    try:
        search = SearchChanges(mode=cast(Mode | None, mode), max_k=max_k)
        record = CatalogueRecord(name=name, kind=kind, recipe=cast(Recipe | None, recipe), attributes=declared, search=search)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {message_of(first)}") from None
    client = Client(server, key=key) if server else Client.running(settings, key=key)
    if client is None:
        asyncio.run(local.create_catalogue(settings, record))
        answer = _report(ClosedCatalogue(name, record, None))
    else:
        fields = ("name", "kind", "recipe", "attributes", "search")
        body = record.model_dump(mode="json", include={*fields}, exclude_none=True)
        answer = client.send(calls.create_catalogue(body))
    if as_json:
        print_json(answer)
        return
    out.print(f"created the catalogue {name}", highlight=False)
    if answer["version"] is None:
        err.print(f"next: matinee ingest FILE --catalogue {name}", highlight=False)


@catalogues_app.command("delete")
@explain_errors()
def delete(
    name: CatalogueArgument,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask first")] = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Delete a catalogue with all its items and index versions. The default one can't be deleted.

    [dim]matinee catalogues delete books --yes[/]
    """
    settings = load_settings()
    client = Client(server, key=key) if server else Client.running(settings, key=key)
    # Nobody is asked about a catalogue that is not there.
    if client is None:
        asyncio.run(local.require_deletable(settings, name))
    else:
        client.send(calls.catalogue(name))
    if not yes:
        typer.confirm(f"Delete the catalogue {name} with all its items?", abort=True)
    if client is None:
        asyncio.run(local.remove_catalogue(settings, name))
    else:
        client.send(calls.delete_catalogue(name))
    out.print(f"deleted the catalogue {name}", highlight=False)


def _report(one: ClosedCatalogue) -> CatalogueReport:
    """A catalogue of this machine, as a server reports it."""
    manifest, record = one.manifest, one.record
    items = None if manifest is None else manifest.count
    state = "unavailable" if one.trouble else "empty" if manifest is None else "ready"
    return {
        "name": one.name,
        "default": record is None,
        "state": "deleting" if record is not None and record.state == "deleting" else state,
        "open": False,
        "version": None if manifest is None else manifest.version,
        "items": items if record is None or record.items is None else record.items,
        "attributes": 0 if manifest is None else len(manifest.declared),
        "kind": None if record is None else record.kind,
        "recipe": None if manifest is None else manifest.recipe,
        "created": None if record is None else record.created,
        "search": {} if record is None else record.search.model_dump(exclude_none=True),
    }
