"""Admission: the places of one gateway, the routes whose queues are long, and the response to a refused request.

An overload is refused by what the first line of a request says. So one process answers it before the app begins (`early`), which takes a
fifth of the CPU time. Does not know who sent a request.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response

from matinee.errors import MatineeError, OverloadedError
from matinee.settings.serving import ServingSettings
from serve.api.clients import Headers
from serve.api.errors import envelope, retry_after
from serve.api.limits import BusyRoutes
from serve.errors import STATUS, RequestError
from serve.graph.concurrency import ConcurrencyLimit, Sharing
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

API = "/v1/"
"""Paths that need a key on a server with keys, and take a place. Pages and probes take none: a full gateway still answers them."""
CATALOGUES = "/v1/catalogues"
BELOW = f"{CATALOGUES}/"
NO_ROUTE = "none"
_LONGEST_NAME = 63
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Admission:
    """How many requests a gateway has under way, and what it refuses because of that.

    `names_requests`: responses carry `X-Request-Id`; False where something in front of the app adds it already.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics, *, names_requests: bool = True, sharing: Sharing | None = None) -> None:
        self.limit = settings.deployment.max_ongoing_requests
        self._concurrency = ConcurrencyLimit(self.limit, sharing or Sharing())
        self.names_requests = names_requests
        self._retry_after_s = settings.retry_after_s
        self._metrics = metrics
        self._busy = BusyRoutes()

    def check(self, method: str, path: str, catalogue: str = "") -> None:
        """Raises `OverloadedError` where all places are taken, or kept for other catalogues, or a queue behind this route is too long."""
        try:
            self._busy.check(_queued_route(method, path, catalogue), self._concurrency.ongoing)
            if (refusal := self._concurrency.refusal(catalogue)) is not None:
                raise OverloadedError(refusal)
        except OverloadedError:
            self._metrics.refused()
            raise

    @contextmanager
    def hold(self, catalogue: str = "") -> Iterator[None]:
        """Counts a request while it is under way. `catalogue`: which it is for, where it is not the default one."""
        with self._concurrency.hold(catalogue):
            self._metrics.in_flight(self._concurrency.ongoing)
            try:
                yield
            finally:
                self._metrics.in_flight(self._concurrency.ongoing - 1)

    def record(self, method: str, path: str, wait_s: float, catalogue: str = "") -> None:
        """A queue behind this route has refused a request that still holds its place."""
        self._busy.record(_queued_route(method, path, catalogue), wait_s, self._concurrency.ongoing - 1)

    def early(self, method: str, path: str, headers: Headers) -> Response | None:
        """The refusal of a request whose app has not begun, None where the app may begin."""
        if not path.startswith(API):
            return None
        try:
            catalogue, inner = split_catalogue(path)
            self.check(method, inner, catalogue or "")
        except OverloadedError as error:
            return self.refusal(error, headers)
        return None

    def refusal(self, error: MatineeError, headers: Headers) -> Response:
        """The response to a request that gets no place. Also writes its line in the log."""
        name, status = request_id(headers), error.status if isinstance(error, RequestError) else STATUS[error.code]
        response = envelope(status, error.code, str(error), name, retry_after_s=retry_after(error, self._retry_after_s))
        response.raw_headers += [*SECURITY_HEADERS, *([(b"x-request-id", name.encode())] if self.names_requests else [])]
        if status != 503:
            self._metrics.requests(endpoint=NO_ROUTE, outcome=error.code, catalogue=NO_ROUTE)
        logs.request(log, status, {"request_id": name, "endpoint": NO_ROUTE, "status": status, "outcome": error.code})
        return response


def request_id(headers: Headers) -> str:
    """The `X-Request-Id` that came (from the caller, or from Serve in front of this), else a new one."""
    name = next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), "")
    return name if 0 < len(name) <= 128 and name.isascii() and name.isprintable() else f"{random.getrandbits(128):032x}"


def _queued_route(method: str, path: str, catalogue: str) -> str:
    """The name of the requests that share their queues with this one, such as `GET /v1/items` for all reads of items."""
    name = f"{method} {'/'.join(path.split('/', 3)[:3])}"
    return f"{name} of {catalogue}" if catalogue else name


def split_catalogue(path: str) -> tuple[str | None, str]:
    """The catalogue in a path, and the route in it as the default one has it; None and the path itself where it names none.

    `/v1/catalogues/films/search` -> films, `/v1/search`. `/v1/catalogues/films` is a route of its own.
    """
    if not path.startswith(BELOW):
        return None, path
    name, _, rest = path[len(BELOW) :].partition("/")
    if not name or len(name) > _LONGEST_NAME or not rest or rest.startswith("catalogues"):
        return None, path
    return name, API + rest
