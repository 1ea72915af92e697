"""The models as they serve: vectors of texts, descriptions of items."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from matinee.items import Item
from serve.api import schemas
from serve.api.large_bodies import LargeBodyRoute
from serve.api.responses import ERRORS, json_response, needs
from serve.api.served_catalogues import catalogue

router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, route_class=LargeBodyRoute)


@router.post("/embed", response_model=schemas.EmbedResponse, name="embed", openapi_extra=needs("read"))
async def embed(body: schemas.EmbedRequest, request: Request) -> Response:
    """Vectors of texts, by the encoder that serves: what `python -m train.ingest --via api` builds an index with."""
    embedded = await catalogue(request).gateway.embed(body.texts, body.kind, request.state.context)
    return json_response(request, fingerprint=embedded.fingerprint, vectors=embedded.vectors)


@router.post("/describe", response_model=schemas.DescribeResponse, name="describe", openapi_extra=needs("read"))
async def describe(body: schemas.DescribeRequest, request: Request) -> Response:
    """A description that the enhancer writes from an item's metadata, checked against it."""
    item = body.item
    if item is None:
        _, payload = await catalogue(request).gateway.find_stored(body.id or "", request.state.context)
        # A large one takes longer than the others may wait.
        item = await asyncio.to_thread(Item.model_validate, payload["item"])
    description = await catalogue(request).gateway.describe(item, request.state.context)
    return json_response(
        request,
        description=description.text,
        source=description.source,
        marked=description.marked,
        violations=[str(violation) for violation in description.violations],
        attempts=description.attempts,
        item=item.facts(),
    )
