"""What all routes share: the scope that each needs, the form of a response, and the errors that each may give. Knows no resource."""

from collections.abc import Iterable
from typing import cast

import orjson
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.responses import Response

from matinee.settings.serving import Scope
from serve.api import schemas
from serve.api.auth import Caller, NeededScope, RouteMatch

_SCHEMAS = "#/components/schemas/"
ERRORS: dict[int | str, dict[str, object]] = {
    status: {"description": text, "content": {"application/json": {"schema": {"$ref": _SCHEMAS + schemas.ErrorResponse.__name__}}}}
    for status, text in {
        400: "not JSON that can be read",
        401: "no valid key",
        403: "the key lacks the scope; or, without keys, a host or an origin that is not trusted",
        404: "no such item or catalogue; or, for feedback, no event log here",
        409: "the title is ambiguous: `candidates` has what was meant; or a catalogue is not in the state that this needs",
        405: "this route has no such method: see `Allow`",
        408: "the body did not arrive in time",
        413: "the body is too large",
        415: "not sent as JSON, or in an encoding other than gzip",
        422: "the request is malformed: the message says where",
        429: "this key or this address takes too much: see `Retry-After`",
        431: "the headers, with path and query, are too large",
        503: "full, starting, or without an index: see `Retry-After`",
        504: "no answer within the deadline",
    }.items()
}

"""What each route may answer. For a `model`, the framework would make a validator for each status of each route, which takes long."""

NDJSON = "application/x-ndjson"
API_KEY = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="an API key; servers without keys let everybody read")


def needs(scope: Scope) -> dict[str, object]:
    """What the OpenAPI document says of a route that needs `scope`, so that `/docs` can send a key. The middleware checks it.

    A dependency of FastAPI would say the same, and cost each request as much as its parameters.
    """
    return {"security": [{API_KEY.scheme_name: [scope]}, {}]}


def error_schemas() -> dict[str, object]:
    """The schemas that `ERRORS` refers to, by their names in the OpenAPI document."""
    made = schemas.ErrorResponse.model_json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization")
    nested: dict[str, object] = made.pop("$defs", {})
    return nested | {schemas.ErrorResponse.__name__: made}


def takes_lines(description: str, instead: type[BaseModel] | None = None) -> dict[str, object]:
    """What the OpenAPI document says of a route whose body is NDJSON, read as it arrives. The middleware lets it in without a limit.

    `instead`: what the body may be as JSON.
    """
    content: dict[str, object] = {NDJSON: {"schema": {"type": "string", "description": description}}}
    if instead is not None:
        content["application/json"] = {"schema": instead.model_json_schema()}
    return {"x-streamed": True, "requestBody": {"required": True, "content": content}}


def streamed_routes(routers: Iterable[APIRouter]) -> list[RouteMatch]:
    """The routes that read their body as it arrives."""
    return [
        RouteMatch(frozenset(route.methods or ()), route.path_regex)
        for route in api_routes(routers)
        if (route.openapi_extra or {}).get("x-streamed")
    ]


def api_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    """The routes of all routers, in the order in which the app tries them."""
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def needed_scopes(routers: Iterable[APIRouter]) -> list[NeededScope]:
    """What each route of `routers` needs, in the order in which the app tries them."""
    return [
        NeededScope(frozenset(route.methods or ()), route.path_regex, cast(Scope, scope))
        for route in api_routes(routers)
        for requirement in (route.openapi_extra or {}).get("security", ())
        for scope in requirement.get(API_KEY.scheme_name, ())
    ]


def caller(request: Request) -> Caller:
    """Who sent it, as the middleware knows."""
    return cast(Caller, request.state.caller)


def json_response(request: Request, status: int = 200, /, **content: object) -> Response:
    """JSON with the request's id."""
    body = orjson.dumps({**content, "request_id": request.state.request_id}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
