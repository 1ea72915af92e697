"""Large JSON bodies are parsed and validated in a thread of their own: a megabyte takes up to a quarter of a second, and the loop goes on.

A small one is read on the loop, where that is quicker than to wake a thread. Does not limit bodies (`serve.api.bodies`).
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

from fastapi.routing import APIRoute
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serve.graph.requests import ON_LOOP_BYTES

# One: the loop waits for Python's lock as often as there are threads that want it.
_reader = ThreadPoolExecutor(1, thread_name_prefix="large-body")


class LargeBodyRoute(APIRoute):
    """A route of FastAPI whose body may be large."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, None, Response]]:
        handle, field = super().get_route_handler(), self.body_field
        if field is None:
            return handle

        def validate(body: bytes) -> object:
            value, errors = field.validate(json.loads(body), loc=("body",))
            if errors:
                raise InvalidBodyError(cast(list[ErrorDetails], errors))
            return value

        return _WithLargeBody(handle, validate)


class _WithLargeBody(partial[Coroutine[object, None, Response]]):
    """A handler that gets a `_LargeBodyRequest`. A `partial`, because that is taken for as asynchronous as the handler in it."""

    def __call__(self, request: Request) -> Coroutine[object, None, Response]:
        [validate] = self.args
        return self.func(_LargeBodyRequest(request, validate))


class InvalidBodyError(HTTPException):
    """What a `RequestValidationError` of a small body says. FastAPI takes any error of `Request.json` but an HTTPException for bad JSON."""

    def __init__(self, errors: list[ErrorDetails]) -> None:
        super().__init__(422)
        self.errors = errors


class _LargeBodyRequest(Request):
    """A request whose `json()` returns the validated value if the body is large. FastAPI's own validation accepts that value."""

    def __init__(self, request: Request, validate: Callable[[bytes], object]) -> None:
        super().__init__(request.scope, request.receive)
        self._validate = validate

    async def json(self) -> object:
        body = await self.body()
        if len(body) <= ON_LOOP_BYTES:
            return await super().json()
        return await asyncio.get_running_loop().run_in_executor(_reader, self._validate, body)
