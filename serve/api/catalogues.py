"""The catalogues of a server: list, create, look up and delete them. What is in one has the routes of the default one below its name."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from matinee.index.registry import CatalogueRecord, SearchChanges, absent
from serve.api import schemas_catalogues as schemas
from serve.api.large_bodies import LargeBodyRoute
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.served_catalogues import all_catalogues
from serve.errors import RequestError
from serve.graph import messages
from serve.graph.catalogue_manager import CatalogueEntry

CatalogueId = Annotated[str, Path(max_length=63)]


router = APIRouter(prefix="/v1", tags=["catalogues"], responses=ERRORS, route_class=LargeBodyRoute)


@router.get("/catalogues", response_model=schemas.CataloguesResponse, name="list_catalogues", openapi_extra=needs("read"))
async def list_catalogues(request: Request) -> Response:
    """The catalogues that the key may see, the default one first."""
    catalogues = all_catalogues(request)
    await catalogues.refresh(request.state.context)
    names = tuple(catalogues.visible(caller(request)))
    entries = await catalogues.gateway.manage(messages.CatalogueEntries(names), request.state.context)
    return json_response(request, catalogues=[_fields(entry) for entry in entries])


@router.post(
    "/catalogues", status_code=201, response_model=schemas.CatalogueResponse, name="create_catalogue", openapi_extra=needs("admin")
)
async def create_catalogue(body: schemas.CreateCatalogueRequest, request: Request) -> Response:
    """Create a catalogue, with an empty index that clients may write to at once. One that an ingest built before keeps its items."""
    catalogues = all_catalogues(request)
    if body.recipe not in (None, "raw") and catalogues.gateway.graph.enhancer is None:
        raise RequestError(422, f"recipe: {body.recipe} needs descriptions, but the enhancer is switched off here (enhancer.enabled)")
    # Any text: the vector says by which encoder and how long vectors are.
    embedded = await catalogues.gateway.embed([body.name], "document", request.state.context)
    record = CatalogueRecord(name=body.name, kind=body.kind, recipe=body.recipe, attributes=body.attributes, search=body.search)
    message = messages.CreateCatalogue(record, embedded.fingerprint, int(embedded.vectors.shape[1]))
    entry = await catalogues.gateway.manage(message, request.state.context)
    await catalogues.refresh(request.state.context)
    return json_response(request, 201, **_fields(entry))


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
    return json_response(request, **_fields(entries[0]))


@router.delete(
    "/catalogues/{catalogue}", response_model=schemas.DeleteCatalogueResponse, name="delete_catalogue", openapi_extra=needs("admin")
)
async def delete_catalogue(catalogue: CatalogueId, request: Request) -> Response:
    """Delete a catalogue with all its items, versions and imports, once the requests under way in it have ended."""
    catalogues = all_catalogues(request)
    if not catalogues.knows(catalogue):
        await catalogues.refresh(request.state.context)
    if not catalogues.knows(catalogue):
        raise absent(catalogue, catalogues.visible(caller(request)))
    try:
        await catalogues.gateway.manage(messages.DeleteCatalogue(catalogue), request.state.context)
    finally:
        await catalogues.refresh(catalogues.gateway.new_context())
    return json_response(request, name=catalogue, deleted=True)


def _fields(entry: CatalogueEntry) -> dict[str, object]:
    record = entry.record
    search = SearchChanges() if record is None else record.search
    return {
        "name": entry.name,
        "default": entry.default,
        "state": entry.state,
        "open": entry.open,
        "version": entry.version,
        "items": entry.items,
        "attributes": entry.attributes,
        "kind": None if record is None else record.kind,
        "recipe": entry.recipe,
        "created": None if record is None else record.created,
        "search": search.model_dump(exclude_none=True),
    }
