"""Tasks that nobody awaits: work in the background, and changes that outlive whoever asked for them."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class BackgroundWork(ABC):
    """The base of what goes on from `start` to `stop`."""

    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @abstractmethod
    async def _run(self) -> None:
        """Never ends by itself, and raises nothing: nobody would see it."""


class OngoingChanges:
    """Changes that are under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def spawn(self, work: Coroutine[object, None, T]) -> "asyncio.Task[T]":
        """A task that `wait` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, work: Coroutine[object, None, T]) -> T:
        """The result of a change. A caller that gives up ends its waiting, never the change."""
        return await asyncio.shield(self.spawn(work))

    async def wait(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
