"""The parts of the graph over Ray handles: typed clients that send micro-batches, and Ray's errors in the terms of the API."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from matinee.errors import MatineeError, OverloadedError
from matinee.models.types import Description
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.tree import Settings
from serve.errors import UnavailableError
from serve.graph.clients import RetrieverClient, collect, model_client
from serve.graph.clock_skew import Clock
from serve.graph.messages import Describe, Embed, Embedded, RetrieverMessage
from serve.graph.microbatch import ResultCallback
from serve.graph.parts import Graph, Info
from serve.graph.ranking_groups import group_rankings
from serve.graph.standby import ModelClient, Standby
from serve.graph.wire import QueuedMessage, to_wire
from serve.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Sent = TypeVar("Sent")
Result = TypeVar("Result")


class RayRemote(Generic[Sent, Result]):
    """The replicas of a deployment. A call that is cancelled here is cancelled there.

    `parts` says in how many parts a replica answers a batch. A stream costs about a third more than a call, and one part needs none.
    """

    def __init__(self, handle: DeploymentHandle, parts: Callable[[list[Sent]], int] = len) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)
        self._parts = parts

    async def __call__(self, batch: list[QueuedMessage[Sent]], on_result: ResultCallback[Result]) -> Sequence[Result | MatineeError]:
        """The batch's results, from one replica."""
        hops, whole = [to_wire(queued) for queued in batch], self._parts([queued.message for queued in batch]) == 1
        response = self._handle.call.remote(hops) if whole else self._streaming.stream.remote(hops)
        try:
            results: Sequence[Result | MatineeError] = await (response if whole else collect(response, on_result))
        except asyncio.CancelledError:
            response.cancel()
            raise
        except (RayServeException, RayError) as error:
            raise _as_matinee_error(self._handle, error) from error
        return results


def graph_of_handles(
    settings: Settings,
    metrics: Metrics,
    embedder: DeploymentHandle,
    retriever: DeploymentHandle,
    enhancer: DeploymentHandle | None,
    cpu_embedder: DeploymentHandle | None = None,
) -> Graph:
    """The graph that a gateway replica talks to."""
    fallback: ModelClient[Embed, Embedded] | None = None
    if cpu_embedder is not None:
        fallback = model_client("embedder", RayRemote[Embed, Embedded](cpu_embedder, encodes), settings, metrics)
    embed: ModelClient[Embed, Embedded]
    embed = model_client("embedder", RayRemote[Embed, Embedded](embedder, encodes), settings, metrics)
    retrieve = RetrieverClient(RayRemote[RetrieverMessage[object], object](retriever, rankings), settings, metrics)
    infos, clocks = {"embedder": _info(embedder)}, {"embedder": _clock(embedder), "retriever": _clock(retriever)}
    if (standby := _standby(embedder, settings.embedder, counted=fallback is not None)) is not None:
        embed = standby.guard(embed, fallback)
        infos["embedder"], clocks["embedder"] = standby.info(infos["embedder"]), standby.only_running(clocks["embedder"])
    if enhancer is None:
        return Graph(embed, retrieve, None, infos, clocks=clocks)
    describe: ModelClient[Describe, Description]
    describe = model_client("enhancer", RayRemote[Describe, Description](enhancer), settings, metrics)
    infos["enhancer"], clocks["enhancer"] = _info(enhancer), _clock(enhancer)
    if (standby := _standby(enhancer, settings.enhancer)) is not None:
        describe = standby.guard(describe)
        infos["enhancer"], clocks["enhancer"] = standby.info(infos["enhancer"]), standby.only_running(clocks["enhancer"])
    return Graph(embed, retrieve, describe, infos, clocks=clocks)


def _standby(handle: DeploymentHandle, part: EmbedderSettings | EnhancerSettings, *, counted: bool = False) -> Standby | None:
    """None where replicas of the part always run, so that nothing has to be `counted`."""
    if part.deployment.min_replicas and not counted:
        return None
    return Standby(handle.deployment_name.lower(), part.model, lambda: asyncio.to_thread(_count_replicas, handle), _start(handle))


def _start(handle: DeploymentHandle) -> Callable[[], Awaitable[object]]:
    """A call that waits for a replica. If it is cancelled here, it leaves the queue, and wants no replica any more."""

    async def start() -> object:
        response = handle.info.remote()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    return _explain(handle, start)


def _count_replicas(handle: DeploymentHandle) -> int:
    """How many replicas of the deployment run. Asks Serve's controller, and blocks meanwhile."""
    try:
        application = ray_serve.status().applications[handle.app_name]
        return int(application.deployments[handle.deployment_name].replica_states.get("RUNNING", 0))
    except KeyError:
        raise UnavailableError(f"{handle.deployment_name} is not deployed now") from None
    except (RayServeException, RayError) as error:
        raise _as_matinee_error(handle, error) from error


def rankings(batch: Sequence[RetrieverMessage[object]]) -> int:
    return len(group_rankings(batch))


def encodes(batch: Sequence[Embed]) -> int:
    """Queries are short: an embedder encodes those of a batch at once."""
    return 1 if all(message.kind == "query" and not message.bulk for message in batch) else len(batch)


def _info(handle: DeploymentHandle) -> Info:
    return _explain(handle, lambda: handle.info.remote())


def _clock(handle: DeploymentHandle) -> Clock:
    return _explain(handle, lambda: handle.clock.remote())


def _explain(handle: DeploymentHandle, ask: Callable[[], Awaitable[Result]]) -> Callable[[], Awaitable[Result]]:
    """`ask`, with Ray's errors as ours."""

    async def call() -> Result:
        try:
            return await ask()
        except (RayServeException, RayError) as error:
            raise _as_matinee_error(handle, error) from error

    return call


def _as_matinee_error(handle: DeploymentHandle, error: Exception) -> MatineeError:
    """An error of Ray's as the gateway raises it."""
    name = handle.deployment_name.lower()
    if isinstance(error, BackPressureError):
        return OverloadedError(f"{name}: its queue is full; ask again in a moment")
    if isinstance(error, DeploymentUnavailableError | RayServeException):
        return UnavailableError(f"{name} is not available now; ask again in a moment")
    cause = getattr(error, "cause", None)
    if isinstance(cause, MatineeError):
        return cause
    # The message holds the part's traceback, which may quote a user's text. The part's own log has both.
    log.warning("%s failed: %s", name, type(cause or error).__name__)
    return UnavailableError(f"{name} failed or was restarted; ask again in a moment")
