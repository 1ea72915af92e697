"""What all routes share: who may ask, the form of an answer, and the errors that each may give. Does not know what is asked."""

from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

from matinee.settings.serving import Scope
from serve.api import schemas
from serve.api.auth import Access

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
        415: "not sent as JSON",
        422: "the request is malformed: the message says where",
        503: "full, starting, or without an index: see `Retry-After`",
        504: "no answer within the deadline",
    }.items()
}


def allow(access: Access, request: Request, scope: Scope) -> None:
    """Raises where the request's key does not allow `scope`; leaves the key's name for the log."""
    request.state.key = access.check(request.headers.get("authorization"), scope)


def answer(request: Request, status: int = 200, /, **content: Any) -> Response:
    """JSON with the request's id."""
    body = orjson.dumps({**content, "request_id": request.state.request_id}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
