"""A model's replica that is loaded when it is first needed, or when the start says so: in the server's own process, or in a deployment.

Whatever needs it meanwhile waits for the load until its deadline. A load that failed is tried again after a pause. Does not import Ray.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from matinee.errors import MatineeError
from serve.errors import UnavailableError
from serve.graph.messages import Json
from serve.graph.wire import WireMessage, enqueue, to_wire

RETRY_S = 30.0
"""How long after a failed load the next request tries again."""

log = logging.getLogger(__name__)

Sent = TypeVar("Sent")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Replica(Protocol[Sent, Result_co]):
    """A model's replica (`serve.graph.model_replica.ModelReplica`), whatever its model and its settings."""

    def reconfigure(self, user_config: Mapping[str, object]) -> None: ...
    async def call(self, batch: Sequence[WireMessage[Sent]]) -> Sequence[Result_co | MatineeError]: ...
    def stream(self, batch: Sequence[WireMessage[Sent]]) -> AsyncIterator[Sequence[tuple[int, Result_co | MatineeError]]]: ...
    async def info(self) -> Json: ...
    def check_health(self) -> None: ...
    def close(self) -> None: ...


class LoadedPart(Generic[Sent, Result]):
    """A model of this process, loaded in a thread by `load`, or for the first message. Messages wait for that until their deadline."""

    def __init__(self, name: str, model: str, make: Callable[[], "Replica[Sent, Result]"]) -> None:
        self.name = name
        self._model = model
        self._make = make
        self._user_config: Mapping[str, object] = {}
        self._replica: Replica[Sent, Result] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._failed_at = float("-inf")

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Update the settings of the model: at once where it is loaded, else for its load."""
        self._user_config, self._failed_at = user_config, float("-inf")
        if self._replica is not None:
            self._replica.reconfigure(user_config)

    def load(self) -> "asyncio.Task[None]":
        """Load the model, once; the task raises what the load raised. After a failure, `RETRY_S` must pass before the next try."""
        again = self._trouble is not None and time.monotonic() - self._failed_at > RETRY_S
        if self._loading is None or (self._loading.done() and again):
            self._loading = asyncio.create_task(self._load(), name=f"load the {self.name}")
        return self._loading

    async def _load(self) -> None:
        user_config = self._user_config
        try:
            replica = await asyncio.to_thread(self._loaded, user_config)
        except Exception as error:
            self._trouble, self._failed_at = str(error), time.monotonic()
            log.error("%s: the model did not load: %s", self.name, error, exc_info=not isinstance(error, MatineeError))
            raise
        if self._user_config is not user_config:
            # An update came while it loaded.
            replica.reconfigure(self._user_config)
        self._replica, self._trouble = replica, None

    def _loaded(self, user_config: Mapping[str, object]) -> "Replica[Sent, Result]":
        replica = self._make()
        try:
            replica.reconfigure(user_config)
        except Exception:
            replica.close()
            raise
        return replica

    def check_health(self) -> None:
        """Raises `RuntimeError` where the model hangs."""
        if self._replica is not None:
            self._replica.check_health()

    async def __call__(self, message: Sent, deadline: float) -> Result:
        """Raises `UnavailableError` while the model is not there."""
        replica = await self.ready(deadline)
        [result] = await replica.call([to_wire(enqueue(message, deadline))])
        if isinstance(result, MatineeError):
            raise result
        return result

    async def ready(self, deadline: float) -> "Replica[Sent, Result]":
        """The loaded replica. Raises `UnavailableError` where it is not there at `deadline`, a `time.monotonic()` moment."""
        return self._replica or await self._wait_loaded(deadline)

    async def _wait_loaded(self, deadline: float) -> "Replica[Sent, Result]":
        loading = self.load()
        await asyncio.wait({loading}, timeout=max(0.0, deadline - time.monotonic()))
        if not loading.done():
            raise UnavailableError(f"{self.name}: its model still loads; ask again in a moment")
        if self._replica is None:
            raise UnavailableError(f"{self.name}: its model did not load ({self._trouble})")
        return self._replica

    async def info(self) -> Json:
        if self._replica is not None:
            return await self._replica.info()
        return {"model": self._model, "loaded": False, "trouble": self._trouble}

    async def close(self) -> None:
        if self._loading is not None:
            # A load can't be interrupted, and its thread would keep the process.
            with suppress(Exception):
                await self._loading
        if self._replica is not None:
            self._replica.close()
