"""The parts of the graph over Ray handles: typed clients that send micro-batches, and Ray's errors in the terms of the API."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from matinee.errors import MatineeError, OverloadedError
from matinee.models.types import Description
from matinee.settings.tree import Settings
from serve.errors import UnavailableError
from serve.graph.messages import Describe, Embed, Embedded, RetrieverMessage
from serve.graph.microbatch import MAX_HOP_BATCH, MicroBatcher, Queued
from serve.graph.parts import Graph, Info, RetrieverClient
from serve.telemetry.metrics import Metrics

HOPS_IN_FLIGHT = 2
"""Two, so that the next batch is on its way while the callee works on one."""

log = logging.getLogger(__name__)

Sent = TypeVar("Sent")
Result = TypeVar("Result")


def graph_of_handles(
    settings: Settings, metrics: Metrics, embedder: DeploymentHandle, retriever: DeploymentHandle, enhancer: DeploymentHandle | None
) -> Graph:
    """The graph that a gateway replica talks to."""

    embed: MicroBatcher[Embed, Embedded] = batched("embedder", lambda batch: embedder.call.remote(batch), settings, metrics)
    retrieve: MicroBatcher[RetrieverMessage[object], object] = batched(
        "retriever", lambda batch: retriever.call.remote(batch), settings, metrics
    )
    if enhancer is None:
        return Graph(embed, RetrieverClient(retrieve), None, {"embedder": _info(embedder)})
    describe: MicroBatcher[Describe, Description] = batched("enhancer", lambda batch: enhancer.call.remote(batch), settings, metrics)
    return Graph(embed, RetrieverClient(retrieve), describe, {"embedder": _info(embedder), "enhancer": _info(enhancer)})


def batched(
    name: str,
    remote: Callable[[list[Queued[Sent]]], Awaitable[Sequence[Result | MatineeError]]],
    settings: Settings,
    metrics: Metrics,
) -> MicroBatcher[Sent, Result]:
    """A client of the part `name`, whose batches `remote` carries to one of its replicas."""

    async def send(batch: list[Queued[Sent]]) -> Sequence[Result | MatineeError]:
        try:
            return await remote(batch)
        except (RayServeException, RayError) as error:
            raise _explained(name, error) from error

    return MicroBatcher(
        name,
        send,
        max_batch=MAX_HOP_BATCH,
        max_in_flight=HOPS_IN_FLIGHT,
        max_waiting=settings.serving.deployment.max_ongoing_requests,
        observe_batch=lambda size: metrics.hop_batch(size, part=name),
    )


def _info(handle: DeploymentHandle) -> Info:
    async def info() -> dict[str, Any]:
        try:
            reported: dict[str, Any] = await handle.info.remote()
        except (RayServeException, RayError) as error:
            raise _explained(handle.deployment_name, error) from error
        return reported

    return info


def _explained(name: str, error: Exception) -> MatineeError:
    """An error of Ray's as the gateway raises it."""
    if isinstance(error, BackPressureError):
        return OverloadedError(f"{name}: its queue is full; ask again in a moment")
    if isinstance(error, DeploymentUnavailableError | RayServeException):
        return UnavailableError(f"{name} is not available now; ask again in a moment")
    cause = getattr(error, "cause", None)
    if isinstance(cause, MatineeError):
        return cause
    # Its message has the part's traceback, and that what a user wrote; the part's own log has both.
    log.warning("%s failed: %s", name, type(cause or error).__name__)
    return UnavailableError(f"{name} failed or was restarted; ask again in a moment")
