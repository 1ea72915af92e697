"""The server's state: what runs (`/v1/info`), whether it lives (`/livez`), and whether traffic may come (`/readyz`)."""

from collections.abc import Mapping

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.api import schemas
from serve.api.redact import is_hidden, public_message, public_report
from serve.api.responses import ERRORS, caller, json_response, needs
from serve.api.served_catalogues import catalogue
from serve.graph.health import Health


def routes(health: Health) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/info", tags=["state"], response_model=schemas.InfoResponse, responses=ERRORS, openapi_extra=needs("read"), name="info")
    async def info(request: Request) -> Response:
        """Versions, models, limits, and what is degraded. Keys of scope admin see whole paths, and why a part is degraded."""
        sender = caller(request)
        report = await catalogue(request).health.info(sender.keys.writable(sender.about), request.state.context)
        shown: Mapping[str, object] = report if sender.may("admin") else public_report(report)
        return json_response(request, **shown)

    @router.get("/livez", tags=["state"], name="livez")
    async def livez() -> Response:
        """The process answers."""
        return Response(b'{"alive":true}', media_type="application/json")

    @router.get(
        "/readyz", tags=["state"], response_model=schemas.ReadyResponse, responses={503: {"model": schemas.ReadyResponse}}, name="readyz"
    )
    async def readyz(request: Request) -> Response:
        """Whether traffic may come: there is an index, and the parts that searches need answer."""
        errors = await health.unready(request.state.context)
        request.state.reasons += [str(error) for error in errors if is_hidden(error)]
        text = str if caller(request).may("admin") else public_message
        reasons = [f"{error.code}: {text(error)}" for error in errors]
        body = orjson.dumps({"ready": not reasons, "reasons": reasons})
        return Response(body, 503 if reasons else 200, media_type="application/json")

    return router
