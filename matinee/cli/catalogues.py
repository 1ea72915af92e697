"""`matinee catalogues`: the catalogues of a server, or of this machine while none runs: list, create, change and delete them."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from matinee.catalogue.declaration import read_declaration
from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.cli.search import Key
from matinee.client import calls
from matinee.client.http import Client
from matinee.errors import MatineeError, SettingsError
from matinee.index import catalogues as local
from matinee.index.catalogues import ClosedCatalogue
from matinee.index.registry import CatalogueChanges, CatalogueRecord, CatalogueReport, CatalogueState, report
from matinee.patterns import message_of
from matinee.settings.load import load_settings

catalogues_app = typer.Typer(no_args_is_help=True, help="The catalogues of a server: list, create, change and delete them.")

Model = TypeVar("Model", CatalogueRecord, CatalogueChanges)

_SETTABLE = ("title", "kind", "recipe", "mode", "max_k")
_LOOK_S = 0.5

Title = Annotated[str | None, typer.Option(help="what people see instead of the name")]
ItemKind = Annotated[str | None, typer.Option(help="what its items are, such as film, where an ingest does not say")]
SearchMode = Annotated[str | None, typer.Option(help="how it is searched where a request does not say: dense, sparse or hybrid")]
MaxK = Annotated[int | None, typer.Option(min=1, max=1000, help="most items in an answer")]
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
    client = Client.find(settings, server, key)
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
        state = f"{row['state']}, building" if row["building"] and row["state"] != "building" else row["state"]
        table.add_row(mark, row["name"], state, items, str(row["attributes"]), escape(row["kind"] or ""), row["version"] or "")
    out.print(table)


@catalogues_app.command("create")
@explain_errors()
def create(
    name: CatalogueArgument,
    title: Title = None,
    kind: ItemKind = None,
    recipe: Annotated[str | None, typer.Option(help="text that is embedded: raw, enhanced or both")] = None,
    attributes: Annotated[Path | None, typer.Option(help="YAML of what its items can be filtered by")] = None,
    mode: SearchMode = None,
    max_k: MaxK = None,
    as_json: Json = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Create a catalogue. On a server it takes items at once; without one, ingest a file under its name next.

    [dim]matinee catalogues create books --kind book[/]
    """
    settings = load_settings()
    declared = None if attributes is None else read_declaration(attributes, {})
    search = {"mode": mode, "max_k": max_k}
    values: dict[str, object] = {"name": name, "title": title, "kind": kind, "recipe": recipe, "attributes": declared, "search": search}
    record = _validate(CatalogueRecord, values)
    client = Client.find(settings, server, key)
    if client is None:
        asyncio.run(local.create_catalogue(settings, record))
        answer = _report(ClosedCatalogue(name, record, None))
    else:
        fields = ("name", "title", "kind", "recipe", "attributes", "search")
        body = record.model_dump(mode="json", include={*fields}, exclude_none=True)
        answer = client.send(calls.create_catalogue(body))
    if as_json:
        print_json(answer)
        return
    out.print(f"created the catalogue {name}", highlight=False)
    if answer["version"] is None:
        err.print(f"next: matinee ingest FILE --catalogue {name}", highlight=False)


@catalogues_app.command("update")
@explain_errors()
def update(
    name: CatalogueArgument,
    title: Title = None,
    kind: ItemKind = None,
    recipe: Annotated[str | None, typer.Option(help="text that the next ingest embeds: raw, enhanced or both")] = None,
    attributes: Annotated[Path | None, typer.Option(help="YAML of all that its items can be filtered by; others are removed")] = None,
    mode: SearchMode = None,
    max_k: MaxK = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="FIELD", help="title, kind, recipe, mode or max_k as in a new catalogue; repeatable"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait until other attributes are in place")] = True,
    as_json: Json = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Change a catalogue. Its items stay, and no text is embedded anew.

    [dim]matinee catalogues update books --attributes books.yaml --mode hybrid[/]
    """
    settings = load_settings()
    given = {"title": title, "kind": kind, "recipe": recipe, "mode": mode, "max_k": max_k}
    body = _changes({name: value for name, value in given.items() if value is not None}, unset or [])
    declared = None if attributes is None else read_declaration(attributes, {})
    if not body and declared is None:
        raise typer.BadParameter("name something to change, such as --title or --attributes")
    client = Client.find(settings, server, key)
    if client is None:
        if declared is not None:
            before = asyncio.run(local.declared_attributes(settings, name))
            body["attributes"] = {other: None for other in before if other not in declared} | declared
        asyncio.run(local.change_catalogue(settings, name, _validate(CatalogueChanges, body)))
        answer = next(row for row in map(_report, asyncio.run(local.list_catalogues(settings))) if row["name"] == name)
    else:
        if declared is not None:
            index = client.require(name).send(calls.info())["index"]
            there = index["attributes"] if index is not None else {}
            shown = {attribute: one.model_dump(mode="json") for attribute, one in declared.items()}
            body["attributes"] = {other: None for other in there if other not in declared} | shown
        answer = client.send(calls.change_catalogue(name, body))
        with err.status("copying the index, with the new attributes"):
            while wait and answer["building"]:
                time.sleep(_LOOK_S)
                answer = client.send(calls.catalogue(name))
        if wait and declared is not None and answer["trouble"]:
            raise MatineeError(f"the catalogue {name!r} stayed as it was: {answer['trouble']}")
    if as_json:
        print_json(answer)
        return
    later = "; its index is still being copied: see `matinee catalogues list`" if answer["building"] else ""
    out.print(f"changed the catalogue {name}{later}", highlight=False)


def _changes(given: dict[str, object], unset: list[str]) -> dict[str, object]:
    """The body of a change: of each setting its value, null for one of `unset`."""
    if unknown := [field for field in unset if field not in _SETTABLE]:
        raise typer.BadParameter(f"--unset {unknown[0]}: use one of {', '.join(_SETTABLE)}")
    values = given | dict.fromkeys(unset)
    body: dict[str, object] = {field: value for field, value in values.items() if field in ("title", "kind", "recipe")}
    search = {field: value for field, value in values.items() if field not in body}
    return body | ({"search": search} if search else {})


def _validate(model: type[Model], values: dict[str, object]) -> Model:
    """Raises `SettingsError` where a value is not one that the model takes."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {message_of(first)}") from None


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
    client = Client.find(settings, server, key)
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
    state: CatalogueState
    if record is not None and record.state == "deleting":
        state = "deleting"
    elif one.trouble:
        state = "unavailable"
    else:
        state = "ready" if manifest is not None else "building" if one.building else "empty"
    items = None if manifest is None else manifest.count
    items = items if record is None or record.items is None else record.items
    return report(one.name, record, state, manifest, items=items, building=one.building, trouble=one.trouble)
