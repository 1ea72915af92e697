"""The one place where an error becomes an HTTP answer: status, `Retry-After`, and the envelope `{code, message, request_id}`."""

from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from matinee.errors import AmbiguousTitleError, MatineeError

STATUS: dict[str, int] = {
    "ambiguous_title": 409,
    "not_found": 404,
    "index_absent": 503,
    "index_locked": 503,
    "index_unavailable": 503,
    "fingerprint_mismatch": 503,
    "overloaded": 503,
    "deadline": 504,
    "unavailable": 503,
    "model": 503,
}
"""Codes of `MatineeError`s that can reach a client; any other is a 500."""

_BY_STATUS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
}


class UnavailableError(MatineeError):
    """A part of the graph can't be reached now: it starts, restarts or has died."""

    code = "unavailable"


class RequestError(MatineeError):
    """A request that is refused before any work: the status says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = _BY_STATUS[status]


def envelope(status: int, code: str, message: str, request_id: str, *, retry_after_s: int | None = None, **more: Any) -> Response:
    """An error as every route answers it."""
    headers = {"Retry-After": str(retry_after_s)} if status == 503 and retry_after_s else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = orjson.dumps({"code": code, "message": message, "request_id": request_id, **more})
    return Response(body, status, headers, media_type="application/json")


def explain(error: Exception, request_id: str, *, retry_after_s: int) -> Response | None:
    """The answer to a known error, None for one that is a bug."""
    match error:
        case RequestError():
            return envelope(error.status, error.code, str(error), request_id)
        case AmbiguousTitleError():
            return envelope(409, error.code, str(error), request_id, candidates=error.candidates)
        case MatineeError() if error.code in STATUS:
            return envelope(STATUS[error.code], error.code, str(error), request_id, retry_after_s=retry_after_s)
        case RequestValidationError():
            return envelope(422, "invalid", _validation_message(error), request_id)
        case HTTPException():
            return envelope(error.status_code, _BY_STATUS.get(error.status_code, "error"), str(error.detail), request_id)
        case RecursionError():
            return envelope(400, "bad_request", "the JSON is nested too deeply", request_id)
    return None


def _validation_message(error: RequestValidationError) -> str:
    problems = []
    for problem in error.errors()[:5]:
        where = ".".join(str(part) for part in problem["loc"] if part != "body")
        message = str(problem["msg"]).removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown field: see /docs for the fields of this route"
        problems.append(f"{where}: {message}" if where else message)
    # What a client sent is echoed nowhere, but a field's name may hold anything: it must stay encodable.
    return "; ".join(problems).encode("utf-8", "backslashreplace").decode()
