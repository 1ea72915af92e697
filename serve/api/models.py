"""The models as they serve: vectors of texts, descriptions of items."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from matinee.items import Item
from serve.api import schemas
from serve.api.auth import ApiKeys
from serve.api.responses import ERRORS, KEY, allow, json_response
from serve.graph.gateway import Gateway


def routes(gateway: Gateway, keys: ApiKeys) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, dependencies=KEY)

    @router.post("/embed", response_model=schemas.EmbedResponse, name="embed")
    async def embed(body: schemas.EmbedRequest, request: Request) -> Response:
        """Vectors of texts, by the encoder that serves: what `python -m train.ingest --via api` builds an index with."""
        allow(keys, request, "read")
        embedded = await gateway.embed(body.texts, body.kind, request.state.trace)
        return json_response(request, fingerprint=embedded.fingerprint, vectors=embedded.vectors)

    @router.post("/describe", response_model=schemas.DescribeResponse, name="describe")
    async def describe(body: schemas.DescribeRequest, request: Request) -> Response:
        """A description that the enhancer writes from an item's metadata, checked against it."""
        allow(keys, request, "read")
        item = body.item
        if item is None:
            _, payload = await gateway.stored(body.id or "", request.state.trace)
            item = Item.model_validate(payload["item"])
        description = await gateway.describe(item, request.state.trace)
        return json_response(
            request,
            description=description.text,
            source=description.source,
            marked=description.marked,
            violations=[str(violation) for violation in description.violations],
            attempts=description.attempts,
            item=item.facts(),
        )

    return router
