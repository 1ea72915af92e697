"""Recommendations, similar items and text search: the routes whose response is a ranked list.

Responses are put together as bytes, because the Retriever has already written the JSON of their items.
"""

import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from matinee.errors import MatineeError
from matinee.recommend.queries import RankedItems
from matinee.recommend.results import Explanation
from serve.api import schemas
from serve.api.errors import fields as explained
from serve.api.large_bodies import LargeBodyRoute
from serve.api.redact import is_hidden
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.served_catalogues import catalogue
from serve.graph.bulk import Bulk
from serve.graph.context import RequestContext
from serve.graph.requests import Id, RecommendBatchRequest, RecommendRequest, SearchRequest, SimilarRequest


def routes(bulk: Bulk) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, route_class=LargeBodyRoute)

    def fields(
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

    def response(request: Request, ranked: RankedItems, endpoint: str, user_id: str | None = None) -> Response:
        text = getattr(request.state, "text", None)
        return json_response(request, **fields(ranked, endpoint, request, request.state.context, user_id, text))

    @router.post("/recommend", response_model=schemas.RankedResponse, name="recommend", openapi_extra=needs("read"))
    async def recommend(body: RecommendRequest, request: Request) -> Response:
        """Items for someone who likes these, dislikes those, and asks for something."""
        if body.debug:
            caller(request).require("admin")
        request.state.text = body.text
        return response(request, await catalogue(request).gateway.recommend(body, request.state.context), "recommend", body.user_id)

    @router.post("/recommend:batch", response_model=schemas.RankedBatchResponse, name="recommend_batch", openapi_extra=needs("read"))
    async def recommend_batch(body: RecommendBatchRequest, request: Request) -> Response:
        """Up to 1,000 recommendations, for mailings: searches and single recommendations go first. Each has an answer or an error."""
        sender = caller(request)
        if any(one.debug for one in body.requests):
            sender.require("admin")
        with bulk.hold(catalogue(request).name):
            answers = await bulk.each(body.requests, catalogue(request).gateway.recommend, time.monotonic() + bulk.settings.deadline_s)
        request.state.reasons += [str(answer) for answer, _ in answers if isinstance(answer, MatineeError) and is_hidden(answer)]
        results = [
            {"error": explained(answer, sender)}
            if isinstance(answer, MatineeError)
            else fields(answer, "recommend_batch", request, context, one.user_id, one.text)
            for one, (answer, context) in zip(body.requests, answers, strict=True)
        ]
        return json_response(request, results=results, failed=sum("error" in result for result in results))

    @router.get("/items/{id}/similar", response_model=schemas.RankedResponse, name="similar", openapi_extra=needs("read"))
    async def similar(
        id: str,
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
        diversity: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        user_id: Annotated[Id | None, Query(description="whoever it is for, by your own id: kept in the event log")] = None,
    ) -> Response:
        """Items near to one item, with what they share. `id` is the index id or the catalogue's own."""
        # Without validation: an id in a path may break the rules of a body's ids. Then no item has it, and the answer is a 404.
        similar_to = SimilarRequest.model_construct(id=id, k=k, diversity=diversity)
        return response(request, await catalogue(request).gateway.similar(similar_to, request.state.context), "similar", user_id)

    @router.post("/similar", response_model=schemas.RankedResponse, name="similar", openapi_extra=needs("read"))
    async def similar_to(body: SimilarRequest, request: Request) -> Response:
        """Items near to one item: by any id, also one that a path can't hold, by its title, or by its facts."""
        if body.debug:
            caller(request).require("admin")
        return response(request, await catalogue(request).gateway.similar(body, request.state.context), "similar", body.user_id)

    @router.post("/search", response_model=schemas.RankedResponse, name="search", openapi_extra=needs("read"))
    async def search(body: SearchRequest, request: Request) -> Response:
        """Items for a text: by meaning, by words, or both."""
        if body.exact or body.debug:
            caller(request).require("admin")
        request.state.text = body.text
        return response(request, await catalogue(request).gateway.search(body, request.state.context), "search", body.user_id)

    return router


def _with_times(case: Explanation, context: RequestContext) -> dict[str, object]:
    """A case with the times of the request's stages."""
    times = context.stages | {"forensics": case["explain_ms"]}
    return {name: value for name, value in case.items() if name != "explain_ms"} | {
        "times_ms": {stage: round(ms, 3) for stage, ms in times.items()}
    }
