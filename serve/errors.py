"""The errors of the graph and of its API, and the HTTP status of each code. Does not know HTTP responses (`serve.api.errors`)."""

from collections.abc import Sequence

from pydantic_core import ErrorDetails

from matinee.errors import FingerprintError, MatineeError
from matinee.patterns import message_of

STATUS: dict[str, int] = {
    "invalid": 422,
    "ambiguous_title": 409,
    "not_found": 404,
    "conflict": 409,
    "events_off": 404,
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

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "late_body",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    431: "headers_too_large",
}
"""The code of a refused request, by its status."""


class UnavailableError(MatineeError):
    """A part of the graph can't be reached now: it starts, restarts or has died."""

    code = "unavailable"


class StartingError(UnavailableError):
    """No replica of a part runs while nobody uses it. `wait_s`: seconds until one that starts may be up; 0 if unknown."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class SwitchedOffError(UnavailableError):
    """A part that this server does not run: another try does not help."""


class ImportChangedError(UnavailableError):
    """Somebody else changed or ended an import under way."""


class EncoderReplacedError(FingerprintError):
    """The texts of one request were embedded by two encoders: the same request can succeed now."""


class RequestError(MatineeError):
    """A request that is refused before any work: the status says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = CODES[status]


def problems(errors: Sequence[ErrorDetails]) -> str:
    """What is wrong with a request, from the errors of its validation: the first five, each with its place."""
    texts = []
    for problem in errors[:5]:
        # A name that the client made up may be as long as a body.
        where = ".".join(str(part)[:100] for part in problem["loc"] if part not in ("body", "query", "path"))
        message = message_of(problem)
        if problem["type"] == "filter" and problem["ctx"]["path"]:
            where = f"{where}.{problem['ctx']['path']}"[:300]
        if problem["type"] == "extra_forbidden":
            message = "unknown field: see /docs for the fields of this route"
        texts.append(f"{where}: {message}" if where else message)
    return encodable("; ".join(texts))


def encodable(message: str) -> str:
    """The message as a response can hold it: a name that a client made up may have half of a character in it."""
    return message.encode("utf-8", "backslashreplace").decode()
