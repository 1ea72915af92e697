"""`POST /v1/feedback`: what users did with an answer. What becomes of it is `serve.api.events`."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.api.large_bodies import LargeBodyRoute
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.schemas_feedback import FeedbackRequest, FeedbackResponse
from serve.api.served_catalogues import catalogue


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, route_class=LargeBodyRoute)

    @router.post("/feedback", status_code=202, response_model=FeedbackResponse, name="feedback", openapi_extra=needs("feedback"))
    async def feedback(body: FeedbackRequest, request: Request) -> Response:
        """What a user saw, chose, liked or disliked of an answer. Kept in the event log, where there is one; changes no answer itself."""
        return json_response(request, 202, accepted=catalogue(request).events.accept(body, caller(request)))

    return router
