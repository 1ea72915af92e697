"""The four Ray Serve deployments: each a shell that gives its part of the graph a process, a queue and replicas."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from matinee.errors import MatineeError, OverloadedError
from matinee.settings.tree import Settings
from serve.api.app import create_app
from serve.api.auth import Access
from serve.api.errors import UnavailableError
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.gateway import Service
from serve.graph.microbatch import Coalescer, Timed
from serve.graph.model_slot import describe_update
from serve.graph.parts import Graph
from serve.graph.retriever import Retriever as RetrieverReplica
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics, NullSink, RaySink

MAX_HOP_BATCH = 64
HOPS_IN_FLIGHT = 2
"""Two, so that the next batch is on its way while the callee works on one."""


@ray_serve.deployment(name="Embedder")
class Embedder:
    """Texts -> vectors."""

    def __init__(self, settings: Settings) -> None:
        logs.configure(settings.serving, "embedder")
        self._settings = settings
        self._replica: EmbedderReplica | None = None

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls it once before the replica takes work, and at every in-place update: only then is the wanted model known."""
        wanted = describe_update(self._settings.embedder, user_config)
        if self._replica is None:
            self._replica = EmbedderReplica(self._settings.model_copy(update={"embedder": wanted}), _metrics(self._settings))
        else:
            self._replica.reconfigure(wanted.model_dump())

    async def call(self, batch: Sequence[Timed[Any]]) -> list[Any]:
        assert self._replica is not None  # noqa: S101  `reconfigure` came first
        return await self._replica.call(batch)

    async def info(self) -> dict[str, Any]:
        assert self._replica is not None  # noqa: S101
        return await self._replica.info()

    def __del__(self) -> None:
        if self._replica is not None:
            self._replica.close()


@ray_serve.deployment(name="Enhancer")
class Enhancer:
    """Items -> descriptions."""

    def __init__(self, settings: Settings) -> None:
        logs.configure(settings.serving, "enhancer")
        self._settings = settings
        self._replica: EnhancerReplica | None = None

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls it once before the replica takes work, and at every in-place update: only then is the wanted model known."""
        wanted = describe_update(self._settings.enhancer, user_config)
        if self._replica is None:
            self._replica = EnhancerReplica(self._settings.model_copy(update={"enhancer": wanted}), _metrics(self._settings))
        else:
            self._replica.reconfigure(wanted.model_dump())

    async def call(self, batch: Sequence[Timed[Any]]) -> list[Any]:
        assert self._replica is not None  # noqa: S101  `reconfigure` came first
        return await self._replica.call(batch)

    async def info(self) -> dict[str, Any]:
        assert self._replica is not None  # noqa: S101
        return await self._replica.info()

    def __del__(self) -> None:
        if self._replica is not None:
            self._replica.close()


@ray_serve.deployment(name="Retriever")
class Retriever:
    """Vectors, words and examples -> ranked items."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        logs.configure(settings.serving, "retriever")
        self._replica = RetrieverReplica(settings, _metrics(settings))
        await self._replica.start()

    def check_health(self) -> None:
        self._replica.check_health()

    async def call(self, batch: Sequence[Timed[Any]]) -> list[Any]:
        return await self._replica.call(batch)

    async def __del__(self) -> None:
        await self._replica.close()


@ray_serve.deployment(name="Gateway")
@ray_serve.ingress()
class Gateway:
    """HTTP -> the graph."""

    def __init__(
        self, settings: Settings, embedder: DeploymentHandle, retriever: DeploymentHandle, enhancer: DeploymentHandle | None
    ) -> None:
        logs.configure(settings.serving, "gateway")
        self._settings = settings
        self._metrics = _metrics(settings)
        handles = {"embedder": embedder, "retriever": retriever} | ({"enhancer": enhancer} if enhancer is not None else {})
        parts = {name: self._part(name, handle) for name, handle in handles.items()}
        infos = {name: _info(handle) for name, handle in handles.items() if name != "retriever"}
        graph = Graph(parts["embedder"], parts["retriever"], parts.get("enhancer"), infos)
        self._service = Service(settings, graph, self._metrics)
        self._access = Access(settings.serving)

    def __serve_build_asgi_app__(self) -> Any:
        # Serve's own wrapper adds the request id to every answer.
        return create_app(self._service, self._access, self._metrics, names_requests=False)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """An in-place update: other keys, without a restart. Without `keys` the settings' own hold."""
        self._access.use(describe_update(self._settings.serving, user_config))

    def _part(self, name: str, handle: DeploymentHandle) -> Coalescer[Any, Any]:
        async def send(batch: list[Timed[Any]]) -> Sequence[Any]:
            results: Sequence[Any] = await _reached(name, lambda: handle.call.remote(batch))
            return results

        return Coalescer(
            name,
            send,
            max_batch=MAX_HOP_BATCH,
            max_in_flight=HOPS_IN_FLIGHT,
            max_waiting=self._settings.serving.deployment.max_ongoing_requests,
            observe_batch=lambda n: self._metrics.hop_batch(n, part=name),
        )


def _metrics(settings: Settings) -> Metrics:
    return Metrics(RaySink() if settings.serving.metrics else NullSink())


def _info(handle: DeploymentHandle) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def ask() -> dict[str, Any]:
        told: dict[str, Any] = await _reached(handle.deployment_name, lambda: handle.info.remote())
        return told

    return ask


async def _reached(name: str, call: Callable[[], Any]) -> Any:
    """The answer of a hop; Ray's own errors in the terms of the API."""
    try:
        return await call()
    except BackPressureError as error:
        raise OverloadedError(f"{name}: its queue is full; ask again in a moment") from error
    except (DeploymentUnavailableError, RayServeException) as error:
        raise UnavailableError(f"{name} is not available now; ask again in a moment") from error
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, MatineeError):
            raise cause from error
        # Its message has the part's traceback, and that what a user wrote; the part's own log has both.
        logging.getLogger(__name__).warning("%s failed: %s", name, type(cause or error).__name__)
        raise UnavailableError(f"{name} failed or was restarted; ask again in a moment") from error
