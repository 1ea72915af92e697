"""The one place where an error becomes an HTTP response: status, `Retry-After`, and the envelope `{code, message, request_id}`."""

import math
from typing import NotRequired, TypedDict

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from matinee.errors import AmbiguousTitleError, MatineeError, OverloadedError
from serve.api.auth import Caller
from serve.api.large_bodies import InvalidBodyError
from serve.api.redact import public_message
from serve.errors import CODES, STATUS, RequestError, StartingError, encodable, problems


class ErrorFields(TypedDict):
    """What a response says of an error. `candidates`: of an ambiguous title, best first."""

    code: str
    message: str
    candidates: NotRequired[list[dict[str, object]]]


def envelope(
    status: int,
    code: str,
    message: str,
    request_id: str,
    *,
    retry_after_s: int | None = None,
    allow: str | None = None,
    candidates: list[dict[str, object]] | None = None,
) -> Response:
    """An error as every route answers it."""
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) and retry_after_s else {}
    if allow is not None:
        headers["Allow"] = allow
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content: dict[str, object] = {"code": code, "message": message, "request_id": request_id}
    if candidates is not None:
        content["candidates"] = candidates
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def explain(error: Exception, request_id: str, sender: Caller, *, retry_after_s: int) -> Response | None:
    """The answer to a known error, None for one that is a bug."""
    match error:
        case RequestError():
            return envelope(error.status, request_id=request_id, retry_after_s=retry_after_s, **error_fields(error, sender))
        case MatineeError() if error.code in STATUS:
            return envelope(
                STATUS[error.code], request_id=request_id, retry_after_s=retry_after(error, retry_after_s), **error_fields(error, sender)
            )
        case RequestValidationError():
            status, message = _validation(error)
            return envelope(status, CODES[status], message, request_id)
        case InvalidBodyError():
            return envelope(422, CODES[422], problems(error.errors), request_id)
        case HTTPException():
            message = _unreadable(error) if error.status_code == 400 else str(error.detail)
            allow = (error.headers or {}).get("Allow")
            return envelope(error.status_code, CODES.get(error.status_code, "error"), message, request_id, allow=allow)
    return None


def error_fields(error: MatineeError, sender: Caller) -> ErrorFields:
    """Code, message and candidates of an error, as `sender` may see them."""
    shown: ErrorFields = {"code": error.code, "message": encodable(str(error) if sender.may("admin") else public_message(error))}
    if isinstance(error, AmbiguousTitleError):
        shown["candidates"] = error.candidates
    return shown


def retry_after(error: Exception, least_s: int) -> int:
    """Seconds until another try makes sense: when the queue that refused has worked off what waits, or the part that is away has started.

    At least `least_s`.
    """
    return max(least_s, math.ceil(error.wait_s)) if isinstance(error, OverloadedError | StartingError) else least_s


def outcome(error: Exception, status: int) -> str:
    """An error as metrics count it: by the code that its envelope has."""
    named = isinstance(error, RequestError) or (isinstance(error, MatineeError) and error.code in STATUS)
    code = getattr(error, "code", None) if named else CODES.get(status)
    return code or ("internal" if status == 500 else "error")


def _unreadable(error: HTTPException) -> str:
    """Why FastAPI could not read the body; it keeps the reason as the cause only."""
    match error.__cause__:
        case RecursionError():
            return "the body is not JSON that can be read: it is nested too deeply"
        case UnicodeDecodeError():
            return "the body is not JSON that can be read: it is not UTF-8"
        case ValueError():
            return "the body is not JSON that can be read: a number has too many digits"
    return str(error.detail)


def _validation(error: RequestValidationError) -> tuple[int, str]:
    """The status and message of a request whose content is not as documented."""
    if isinstance(error.body, bytes):
        return 415, "send JSON, with the header Content-Type: application/json"
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return 400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    return 422, problems(error.errors())
