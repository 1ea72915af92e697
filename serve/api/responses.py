"""What all routes share: the check of the API key, the form of a response, and the errors that each may give. Knows no resource."""

from typing import Any

import orjson
from fastapi import Request, Security
from fastapi.params import Depends
from fastapi.security import HTTPBearer
from starlette.responses import Response

from matinee.settings.serving import Scope
from serve.api import schemas
from serve.api.auth import ApiKeys

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorResponse, "description": text}
    for status, text in {
        400: "not JSON that can be read",
        401: "no valid key",
        403: "the key lacks the scope",
        404: "no such item; or, for feedback, no event log here",
        409: "the title is ambiguous: `candidates` has what was meant",
        405: "this route has no such method: see `Allow`",
        413: "the body is too large",
        415: "not sent as JSON, or in an encoding other than gzip",
        422: "the request is malformed: the message says where",
        503: "full, starting, or without an index: see `Retry-After`",
        504: "no answer within the deadline",
    }.items()
}

KEY: list[Depends] = [
    Security(HTTPBearer(auto_error=False, scheme_name="ApiKey", description="an API key; servers without keys let everybody read"))
]
"""Documents the API key, so that `/docs` can send one. It checks nothing: `allow` does, and knows the scope that a route needs."""


def allow(keys: ApiKeys, request: Request, scope: Scope) -> None:
    """Raises where the request's key does not allow `scope`; leaves the key's name for the log."""
    request.state.key = keys.check(request.headers.get("authorization"), scope)


def json_response(request: Request, status: int = 200, /, **content: object) -> Response:
    """JSON with the request's id."""
    body = orjson.dumps({**content, "request_id": request.state.request_id}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
