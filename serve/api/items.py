"""The catalogue's items: list, look up, write and delete them; and the values that filters can take."""

from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from matinee.filters import ItemFilter
from matinee.index.ids import as_uuid
from matinee.index.types import Payload
from matinee.items import MAX_LIST, Name
from serve.api import schemas
from serve.api.large_bodies import LargeBodyRoute
from serve.api.responses import ERRORS, json_response, needs
from serve.api.served_catalogues import catalogue
from serve.errors import RequestError
from serve.graph import messages
from serve.graph.context import RequestContext
from serve.graph.requests import Id

Values = Annotated[list[Name], Query(max_length=MAX_LIST)]
ItemId = Annotated[Id, Query(description="the catalogue's own id, or the index id")]
ItemPatch = Annotated[
    dict[str, object],
    Body(
        media_type="application/merge-patch+json",
        description="the facts to change, by their names in an item; null removes one",
        examples=[{"numbers": {"rating": 8.4}, "genres": ["Drama"], "language": None}],
    ),
]
JsonFilter = Annotated[str | None, Query(max_length=4000, description="a filter as JSON, as POST /v1/search takes it")]
_ANY: list[str] = []


router = APIRouter(prefix="/v1", tags=["catalogue"], responses=ERRORS, route_class=LargeBodyRoute)


@router.get("/items", response_model=schemas.ItemsResponse, name="list_items", openapi_extra=needs("read"))
async def list_items(
    request: Request,
    q: Annotated[str | None, Query(min_length=1, max_length=500, description="the beginning of a title, typos forgiven")] = None,
    since: Annotated[int, Query(ge=0, le=2**62, description="only items written after this revision")] = 0,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    origin: Annotated[Literal["file", "api"] | None, Query()] = None,
    deleted: bool = False,
    filter: JsonFilter = None,
) -> Response:
    """Suggestions for a beginning (`q`), or the whole catalogue page by page, of the items that pass `filter`."""
    chosen = _filter(filter)
    context: RequestContext = request.state.context
    if q is not None:
        suggested = await catalogue(request).gateway.retrieve(messages.Suggest(q, min(limit, 20), chosen), context)
        return json_response(request, items=[_stored_fields(id, payload) for id, payload in suggested], cursor=None)
    page, after = await catalogue(request).gateway.retrieve(messages.Page(limit, _cursor(cursor), since, chosen, origin, deleted), context)
    return json_response(request, items=[_stored_fields(id, payload) for id, payload in page], cursor=after)


@router.get("/items/{id}", response_model=schemas.StoredItem, name="get_item", openapi_extra=needs("read"))
async def get_item(id: str, request: Request) -> Response:
    """One item as the index holds it."""
    uid, payload = await catalogue(request).gateway.find_stored(id, request.state.context)
    return Response(orjson.dumps(_stored_fields(uid, payload)), media_type="application/json")


@router.get("/item", response_model=schemas.StoredItem, name="get_item", openapi_extra=needs("read"))
async def get_item_by_query(id: ItemId, request: Request) -> Response:
    """The same, for any id: also one with slashes or dots, which a path can't hold."""
    return await get_item(id, request)


@router.put("/items", response_model=schemas.WriteResponse, name="put_items", openapi_extra=needs("write"))
async def put_items(body: schemas.PutItemsRequest, request: Request) -> Response:
    """Add or replace up to 100 items: searchable when this returns, described in the background where the index wants it."""
    return json_response(request, items=await catalogue(request).writes.put(body.items, request.state.context))


@router.patch("/items/{id}", response_model=schemas.StoredItem, name="patch_item", openapi_extra=needs("write"))
async def patch_item(id: str, patch: ItemPatch, request: Request) -> Response:
    """Change facts of an item by a JSON merge patch (RFC 7396): a value replaces, null removes. Other facts and the id stay.

    Unless its text changes, the encoder does not run.
    """
    uid, payload = await catalogue(request).writes.patch(id, patch, request.state.context)
    return Response(orjson.dumps(_stored_fields(uid, payload)), media_type="application/json")


@router.patch("/item", response_model=schemas.StoredItem, name="patch_item", openapi_extra=needs("write"))
async def patch_item_by_query(id: ItemId, patch: ItemPatch, request: Request) -> Response:
    """The same, for any id: also one with slashes or dots, which a path can't hold."""
    return await patch_item(id, patch, request)


@router.delete("/items/{id}", response_model=schemas.DeleteResponse, name="delete_item", openapi_extra=needs("write"))
async def delete_item(id: str, request: Request) -> Response:
    """Delete an item; a later ingest of the catalogue's file does not bring it back."""
    return json_response(request, id=await catalogue(request).writes.delete(id, request.state.context), deleted=True)


@router.delete("/item", response_model=schemas.DeleteResponse, name="delete_item", openapi_extra=needs("write"))
async def delete_item_by_query(id: ItemId, request: Request) -> Response:
    """The same, for any id: also one with slashes or dots, which a path can't hold."""
    return await delete_item(id, request)


@router.post("/items:delete", response_model=schemas.DeleteManyResponse, name="delete_items", openapi_extra=needs("write"))
async def delete_items(body: schemas.DeleteManyRequest, request: Request) -> Response:
    """Delete items together, all or none; `dry_run` only says which they are. A later ingest of the file brings none of them back.

    With a filter, one request deletes up to 1,000 items; `more` says whether others pass it too.
    """
    context: RequestContext = request.state.context
    if body.filter is not None:
        page, after = await catalogue(request).gateway.retrieve(messages.Page(schemas.MAX_DELETE, filter=body.filter), context)
        chosen: Sequence[str] = [id for id, _ in page]
    else:
        chosen, after = body.ids or (), None
    deleted = await catalogue(request).writes.delete_many(chosen, context, dry_run=body.dry_run) if chosen else {}
    ids = list(dict.fromkeys(uid for uid in deleted.values() if uid is not None))
    # What others deleted since it was listed is no unknown id of the request.
    unknown = [] if body.ids is None else [id for id, uid in deleted.items() if uid is None]
    return json_response(request, count=len(ids), ids=ids, unknown=unknown, more=after is not None, dry_run=body.dry_run)


@router.get("/facets", response_model=schemas.FacetsResponse, name="facets", openapi_extra=needs("read"))
async def facets(
    request: Request,
    kind: Values = _ANY,
    genres: Values = _ANY,
    language: Values = _ANY,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    attribute: Annotated[list[str], Query(max_length=MAX_LIST, description="only these attributes; repeatable")] = _ANY,
    filter: JsonFilter = None,
) -> Response:
    """Values and counts for filters, among the items that pass the given ones."""
    bare = {name: values for name, values in (("kind", kind), ("genres", genres), ("language", language)) if values}
    parts = [part for part in (bare, _filter(filter).body) if part]
    chosen = ItemFilter(**parts[0]) if len(parts) == 1 else ItemFilter(**{"and": parts}) if parts else ItemFilter()
    counted = await catalogue(request).gateway.retrieve(messages.Facets(chosen, limit, tuple(attribute)), request.state.context)
    facets = {name: [{"value": value, "count": n} for value, n in pairs] for name, pairs in counted.values.items()}
    usual = {name: facets.get(name, []) for name in ("kind", "genres", "language")}
    return json_response(request, count=counted.count, approximate=counted.approximate, facets=facets, **usual)


def _filter(text: str | None) -> ItemFilter:
    """The filter of a query string."""
    if text is None:
        return ItemFilter()
    try:
        body = orjson.loads(text)
    except ValueError as error:
        raise RequestError(422, f"filter: not JSON ({error}): write it like the filter of POST /v1/search, URL-encoded") from None
    return ItemFilter.parse(body)


def _cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    uid = as_uuid(cursor)
    if uid is None:
        raise RequestError(422, "cursor: not one that this API gave; start again without it")
    return uid


def _stored_fields(id: str, payload: Payload) -> dict[str, object]:
    if payload.get("deleted"):
        return {"id": id, "item": {"title": "(deleted)"}, "origin": "api", "revision": payload["revision"], "deleted": True}
    keys = ("item", "origin", "revision", "enriched", "description", "asked")
    return {"id": id, **{key: value for key, value in payload.items() if key in keys}}
