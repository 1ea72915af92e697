"""Work of many parts that nobody waits for: a limit of how much is under way, a pause where a queue is full, and the lane behind searches.

Does not know HTTP (`serve.api`), nor what the parts are.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_exponential

from matinee.errors import MatineeError, OverloadedError
from matinee.settings.serving import BulkSettings
from serve.graph.concurrency import ConcurrencyLimit, Sharing
from serve.graph.context import RequestContext

_AT_ONCE = 16
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

Part = TypeVar("Part")
Result = TypeVar("Result")


class Bulk:
    """The bulk requests of one gateway. `deadline_s`: seconds that one part may take."""

    def __init__(self, settings: BulkSettings, deadline_s: float, sharing: Sharing | None = None) -> None:
        self.settings = settings
        self._deadline_s = deadline_s
        self._concurrency = ConcurrencyLimit(settings.at_once, sharing or Sharing())

    @contextmanager
    def hold(self, catalogue: str) -> Iterator[None]:
        """Raises if the most bulk requests allowed are under way, or if the free places are for other catalogues."""
        if (refusal := self._concurrency.refusal(catalogue)) is not None:
            raise OverloadedError(f"bulk requests (serving.bulk.at_once): {refusal}")
        with self._concurrency.hold(catalogue):
            yield

    def new_context(self, ends: float) -> RequestContext:
        return RequestContext(min(ends, time.monotonic() + self._deadline_s), bulk=True)

    async def each(
        self, parts: Sequence[Part], work: Callable[[Part, RequestContext], Awaitable[Result]], ends: float
    ) -> list[tuple[Result | MatineeError, RequestContext]]:
        """The result or the error of each part, and its context, in order; a few at a time, all of them by the moment `ends`."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(part: Part) -> tuple[Result | MatineeError, RequestContext]:
            async with free:
                try:
                    return await self.retry(lambda context: work(part, context), ends)
                except MatineeError as error:
                    return error, RequestContext(ends)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(part)) for part in parts]
        return [task.result() for task in tasks]

    async def retry(self, work: Callable[[RequestContext], Awaitable[Result]], ends: float) -> tuple[Result, RequestContext]:
        """The result of `work`, tried again with growing pauses while a queue is full, until the moment `ends`."""

        async def attempt() -> tuple[Result, RequestContext]:
            context = self.new_context(ends)
            return await work(context), context

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(OverloadedError),
            wait=wait_exponential(_PAUSE_S, _LONGEST_PAUSE_S),
            stop=stop_before_delay(ends - time.monotonic()),
            reraise=True,
        )
        return await retrying(attempt)
