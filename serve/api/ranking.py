"""Recommendations, similar items and text search: the routes whose response is a ranked list.

Responses are put together as bytes, because the Retriever has already written the JSON of their items.
"""

import time

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from matinee.errors import MatineeError
from matinee.recommend.queries import RankedItems
from matinee.recommend.results import Explanation
from serve.api import schemas
from serve.api.direct_route import DirectRoute
from serve.api.errors import error_fields
from serve.api.query_parameters import document_query, read_query
from serve.api.redact import is_hidden
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.served_catalogues import catalogue
from serve.graph.context import RequestContext
from serve.graph.requests import RecommendBatchRequest, RecommendRequest, SearchRequest, SimilarQuery, SimilarRequest

_ITEM_ID: dict[str, object] = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "title": "Id"}}
_NO_ITEM = SimilarRequest.model_construct()

router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, route_class=DirectRoute)


def _fields(
    ranked: RankedItems, endpoint: str, request: Request, context: RequestContext, user_id: str | None, text: str | None
) -> dict[str, object]:
    """An answer, once its impression is logged."""
    served = catalogue(request)
    served.gateway.metrics.results(ranked.count, endpoint=endpoint)
    token = served.events.impression(ranked, endpoint, request.state.request_id, context, caller(request), user_id, text)
    counted = {name: [{"value": value, "count": n} for value, n in pairs] for name, pairs in (ranked.facets or {}).items()}
    optional = {
        "exclude_unknown": ranked.exclude_unknown or None,
        "debug": None if ranked.debug is None else _with_times(ranked.debug, context),
        "facets": None if ranked.facets is None else counted,
        "feedback_token": token,
    }
    return {
        "items": orjson.Fragment(ranked.items),
        "score_type": ranked.score_type,
        "likes": ranked.likes,
        "degraded": context.degraded,
    } | {name: value for name, value in optional.items() if value is not None}


def _respond(request: Request, ranked: RankedItems, endpoint: str, user_id: str | None = None) -> Response:
    text = getattr(request.state, "text", None)
    return json_response(request, **_fields(ranked, endpoint, request, request.state.context, user_id, text))


@router.post("/recommend", response_model=schemas.RankedResponse, name="recommend", openapi_extra=needs("read"))
async def recommend(body: RecommendRequest, request: Request) -> Response:
    """Items for someone who likes these, dislikes those, and asks for something."""
    if body.debug:
        caller(request).require("admin")
    request.state.text = body.text
    return _respond(request, await catalogue(request).gateway.recommend(body, request.state.context), "recommend", body.user_id)


@router.post("/recommend:batch", response_model=schemas.RankedBatchResponse, name="recommend_batch", openapi_extra=needs("read"))
async def recommend_batch(body: RecommendBatchRequest, request: Request) -> Response:
    """Up to 1,000 recommendations, for mailings: searches and single recommendations go first. Each has an answer or an error."""
    sender, served = caller(request), catalogue(request)
    if any(one.debug for one in body.requests):
        sender.require("admin")
    with served.bulk.hold(served.name):
        ends = time.monotonic() + served.bulk.settings.deadline_s
        answers = await served.bulk.each(body.requests, served.gateway.recommend, ends)
    request.state.reasons += [str(answer) for answer, _ in answers if isinstance(answer, MatineeError) and is_hidden(answer)]
    results = [
        {"error": error_fields(answer, sender)}
        if isinstance(answer, MatineeError)
        else _fields(answer, "recommend_batch", request, context, one.user_id, one.text)
        for one, (answer, context) in zip(body.requests, answers, strict=True)
    ]
    return json_response(request, results=results, failed=sum("error" in result for result in results))


@router.get(
    "/items/{id}/similar",
    response_model=schemas.RankedResponse,
    name="similar",
    openapi_extra=needs("read") | {"parameters": [_ITEM_ID, *document_query(SimilarQuery)]},
)
async def similar(request: Request) -> Response:
    """Items near to one item, with what they share. `id` is the index id or the catalogue's own."""
    query = read_query(request, SimilarQuery)
    # Without validation: an id in a path may break the rules of a body's ids. Then no item has it, and the answer is a 404.
    similar_to = _NO_ITEM.model_copy(update={"id": request.path_params["id"], "k": query.k, "diversity": query.diversity})
    return _respond(request, await catalogue(request).gateway.similar(similar_to, request.state.context), "similar", query.user_id)


@router.post("/similar", response_model=schemas.RankedResponse, name="similar", openapi_extra=needs("read"))
async def similar_to(body: SimilarRequest, request: Request) -> Response:
    """Items near to one item: by any id, also one that a path can't hold, by its title, or by its facts."""
    if body.debug:
        caller(request).require("admin")
    return _respond(request, await catalogue(request).gateway.similar(body, request.state.context), "similar", body.user_id)


@router.post("/search", response_model=schemas.RankedResponse, name="search", openapi_extra=needs("read"))
async def search(body: SearchRequest, request: Request) -> Response:
    """Items for a text: by meaning, by words, or both."""
    if body.exact or body.debug:
        caller(request).require("admin")
    request.state.text = body.text
    return _respond(request, await catalogue(request).gateway.search(body, request.state.context), "search", body.user_id)


def _with_times(case: Explanation, context: RequestContext) -> dict[str, object]:
    """A case with the times of the request's stages."""
    times = context.stages | {"forensics": case["explain_ms"]}
    return {name: value for name, value in case.items() if name != "explain_ms"} | {
        "times_ms": {stage: round(ms, 3) for stage, ms in times.items()}
    }
