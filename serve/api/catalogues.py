"""The catalogues of a server: list, create, look up, change and delete them. Each has the routes of the default one below its name."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from matinee.index.registry import CatalogueRecord, CatalogueReport, absent
from matinee.settings.index import Recipe
from serve.api import schemas_catalogues as schemas
from serve.api.auth import Caller
from serve.api.large_bodies import LargeBodyRoute
from serve.api.redact import HIDDEN
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.served_catalogues import all_catalogues
from serve.api.served_catalogues import catalogue as find_catalogue
from serve.errors import RequestError
from serve.graph import messages
from serve.graph.context import RequestContext
from serve.graph.gateway import Gateway

CatalogueId = Annotated[str, Path(max_length=63)]


router = APIRouter(prefix="/v1", tags=["catalogues"], responses=ERRORS, route_class=LargeBodyRoute)
index_router = APIRouter(prefix="/v1", tags=["catalogue"], responses=ERRORS, route_class=LargeBodyRoute)
"""What each catalogue has of its index."""


@router.get("/catalogues", response_model=schemas.CataloguesResponse, name="list_catalogues", openapi_extra=needs("read"))
async def list_catalogues(request: Request) -> Response:
    """The catalogues that the key may see, the default one first."""
    catalogues = all_catalogues(request)
    await catalogues.refresh(request.state.context)
    names = tuple(catalogues.visible(caller(request)))
    entries = await catalogues.gateway.manage(messages.CatalogueEntries(names), request.state.context)
    return json_response(request, catalogues=[_fields(entry, caller(request)) for entry in entries])


@router.post(
    "/catalogues", status_code=201, response_model=schemas.CatalogueResponse, name="create_catalogue", openapi_extra=needs("admin")
)
async def create_catalogue(body: schemas.CreateCatalogueRequest, request: Request) -> Response:
    """Create a catalogue, with an empty index that clients may write to at once. One that an ingest built before keeps its items."""
    catalogues = all_catalogues(request)
    _check_recipe(catalogues.gateway, body.recipe)
    fingerprint, dimension = await _encoder(catalogues.gateway, request.state.context)
    record = CatalogueRecord(**{name: getattr(body, name) for name in type(body).model_fields})
    entry = await catalogues.gateway.manage(messages.CreateCatalogue(record, fingerprint, dimension), request.state.context)
    await catalogues.refresh(request.state.context)
    return json_response(request, 201, **_fields(entry, caller(request)))


@router.get("/catalogues/{catalogue}", response_model=schemas.CatalogueResponse, name="get_catalogue", openapi_extra=needs("read"))
async def get_catalogue(catalogue: CatalogueId, request: Request) -> Response:
    """One catalogue."""
    catalogues = all_catalogues(request)
    entries = await catalogues.gateway.manage(messages.CatalogueEntries((catalogue,)), request.state.context)
    if not catalogues.knows(catalogue):
        # What is shown here can be asked for from now on.
        await catalogues.refresh(request.state.context)
    if not entries:
        raise absent(catalogue, catalogues.visible(caller(request)))
    return json_response(request, **_fields(entries[0], caller(request)))


@router.patch("/catalogues/{catalogue}", response_model=schemas.CatalogueResponse, name="change_catalogue", openapi_extra=needs("admin"))
async def change_catalogue(catalogue: CatalogueId, body: schemas.ChangeCatalogueRequest, request: Request) -> Response:
    """Change a catalogue. Other attributes copy its index, without the encoder: while `building` is true, it answers as before."""
    catalogues = all_catalogues(request)
    _check_recipe(catalogues.gateway, body.recipe)
    await _require_known(catalogue, request)
    entry = await catalogues.gateway.manage(messages.ChangeCatalogue(catalogue, body.changes()), request.state.context)
    await catalogues.refresh(request.state.context)
    return json_response(request, 202 if entry["building"] else 200, **_fields(entry, caller(request)))


@router.delete(
    "/catalogues/{catalogue}", response_model=schemas.DeleteCatalogueResponse, name="delete_catalogue", openapi_extra=needs("admin")
)
async def delete_catalogue(catalogue: CatalogueId, request: Request) -> Response:
    """Delete a catalogue with all its items, versions and imports, once the requests under way in it have ended."""
    catalogues = all_catalogues(request)
    await _require_known(catalogue, request)
    try:
        await catalogues.gateway.manage(messages.DeleteCatalogue(catalogue), request.state.context)
    finally:
        await catalogues.refresh(catalogues.gateway.new_context())
    return json_response(request, name=catalogue, deleted=True)


@index_router.post("/index", status_code=201, response_model=schemas.CatalogueResponse, name="create_index", openapi_extra=needs("write"))
async def create_index(body: schemas.CreateIndexRequest, request: Request) -> Response:
    """Make a first, empty index, so that clients may write items before any ingest. 409 where there is one."""
    served = find_catalogue(request)
    fingerprint, dimension = await _encoder(served.gateway, request.state.context)
    message = messages.CreateIndex(served.name, body.attributes, fingerprint, dimension)
    entry = await served.gateway.manage(message, request.state.context)
    return json_response(request, 201, **_fields(entry, caller(request)))


async def _require_known(name: str, request: Request) -> None:
    """Raises a 404 for a catalogue that is not there, also once the registry is read anew."""
    catalogues = all_catalogues(request)
    if not catalogues.knows(name):
        await catalogues.refresh(request.state.context)
    if not catalogues.knows(name):
        raise absent(name, catalogues.visible(caller(request)))


def _check_recipe(gateway: Gateway, recipe: Recipe | None) -> None:
    if recipe not in (None, "raw") and gateway.graph.enhancer is None:
        raise RequestError(422, f"recipe: {recipe} needs descriptions, but the enhancer is switched off here (enhancer.enabled)")


async def _encoder(gateway: Gateway, context: RequestContext) -> tuple[str, int]:
    """The fingerprint of the encoder that serves, and the length of its vectors: any text's vector has both."""
    embedded = await gateway.embed(["x"], "document", context)
    return embedded.fingerprint, int(embedded.vectors.shape[1])


def _fields(report: CatalogueReport, sender: Caller) -> dict[str, object]:
    """A catalogue as `sender` may see it."""
    hidden = report["trouble"] is not None and not sender.may("admin")
    return {**report, "trouble": HIDDEN if hidden else report["trouble"]}
