"""Routes whose function takes nothing but the request, and reads what it needs from it: the router calls it.

The framework would look for parameters, dependencies and files that such a route does not have, which takes longer than most of them.
"""

import inspect
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.api.large_bodies import LargeBodyRoute


class DirectRoute(LargeBodyRoute):
    """A route of FastAPI, documented as any other. One with parameters of its own is also served as any other."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **options: object) -> None:
        super().__init__(path, endpoint, **options)  # type: ignore[arg-type]
        if [*inspect.signature(endpoint).parameters] == ["request"]:
            self.app = _direct(endpoint)


def _direct(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app
