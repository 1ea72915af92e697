"""The API as the probe asks it: each request with a deadline, few at a time, its time and its failure passed to a callback.

Does not know what is asked, nor how it is exported. Neither texts nor the key ever reach a message.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Self, TypeVar

from matinee.client import calls
from matinee.client.calls import Call
from matinee.client.http import AsyncClient, ServerError
from matinee.settings.serving import ProbeSettings
from serve.errors import STATUS

Observe = Callable[[str, float], None]
Count = Callable[[str], None]
Result = TypeVar("Result")

REASONS = frozenset({*STATUS, "unauthorized", "forbidden", "invalid", "bad_request", "internal", "timeout", "unreachable", "malformed"})
"""Why a request failed, as metrics count it: the error's code, one of these or `other`."""


class ProbeClient:
    """One server. `observe(endpoint, seconds)` hears of every request, `count(reason)` of every failed one."""

    def __init__(self, url: str, settings: ProbeSettings, observe: Observe, count: Count) -> None:
        key = settings.key.get_secret_value().strip() if settings.key else None
        most = settings.concurrency
        self._client = AsyncClient(
            url, key=key, timeout_s=settings.deadline_s, direct=settings.url is None, connections=most, setting="probe"
        )
        self.url = self._client.url
        self._slots = asyncio.Semaphore(most)
        self._observe, self._count = observe, count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    async def send(self, endpoint: str, call: Call[Result], *, missing_is_fine: bool = False) -> Result:
        """The response's JSON. Raises `ServerError`; with `missing_is_fine` one of code `not_found` counts as no failure.

        Waiting for a free slot counts towards no deadline.
        """
        async with self._slots:
            start = time.perf_counter()
            try:
                return await self._client.send(call)
            except ServerError as error:
                failure = error
            finally:
                self._observe(endpoint, time.perf_counter() - start)
        if not (missing_is_fine and failure.code == "not_found"):
            self._count(reason(failure))
        if failure.status is not None:
            message = f"{self.url}{call.path} answered {failure.status} {failure.code[:50]}: {str(failure)[:500]}"
            raise ServerError(message, failure.code, status=failure.status) from failure
        raise failure

    def count_error(self, code: str, message: str) -> ServerError:
        """The error, counted, of a request whose answer turned out to be of no use."""
        error = ServerError(message, code)
        self._count(reason(error))
        return error

    async def exists(self, id: str) -> bool:
        """Whether the index has this item."""
        return await self.index_id(id) is not None

    async def index_id(self, id: str) -> str | None:
        """The index id of the item that has this id; None where there is no such item."""
        try:
            return (await self.send("item", calls.item(id), missing_is_fine=True))["id"]
        except ServerError as error:
            if error.code != "not_found":
                raise
            return None


def reason(error: ServerError) -> str:
    """Why a request failed, as metrics count it."""
    return error.code if error.code in REASONS else "other"
