"""The clients of the parts: each message to the right queue, in micro-batches. Does not know how a part is reached: see `Send`."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Literal, Protocol, TypeVar, cast

from matinee.errors import MatineeError
from matinee.recommend.queries import is_light
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.lane_queue import Lane
from serve.graph.messages import Describe, Embed, RetrieverMessage
from serve.graph.microbatch import MAX_HOP_BATCH, MicroBatcher, ResultCallback
from serve.graph.wire import QueuedMessage, WireMessage, to_wire
from serve.telemetry.metrics import Metrics

_BULK_HOP_BATCH = 8
HOPS_IN_FLIGHT = 2
"""Two, so that the next batch is on its way while the callee works on one."""

Sent = TypeVar("Sent")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Model = TypeVar("Model", Embed, Describe)
Pairs = Sequence[tuple[int, Result | MatineeError]]
Send = Callable[[list[QueuedMessage[Sent]], ResultCallback[Result]], Awaitable[Sequence[Result | MatineeError]]]
"""Carries a batch to one of a part's replicas, for a `MicroBatcher`: over Ray (`handles.RayRemote`), or in this process (`send_to`)."""

_BULK = (
    messages.Write,
    messages.Change,
    messages.Delete,
    messages.DeleteMany,
    messages.Page,
    messages.Facets,
    messages.Pending,
    *messages.IMPORTS,
    messages.CataloguesMessage,
)
"""What takes the index longer than a search does."""


class Streaming(Protocol[Sent, Result_co]):
    """A replica: a batch's results in pairs of place and result, as they become known."""

    def stream(self, batch: Sequence[WireMessage[Sent]]) -> AsyncIterator[Sequence[tuple[int, Result_co | MatineeError]]]: ...


def model_client(
    name: Literal["embedder", "enhancer"], send: Send[Model, Result], settings: Settings, metrics: Metrics
) -> Callable[[Model, float], Coroutine[object, None, Result]]:
    """A client of a model's replicas. Bulk travels apart from what somebody waits for: they share neither batches nor places."""
    max_waiting = settings.serving.deployment.max_ongoing_requests
    if name == "enhancer":
        max_wait_s, bulk_waiting = settings.enhancer.deadline_s, settings.enhancer.bulk_waiting
    else:
        max_wait_s, bulk_waiting = settings.serving.max_wait_s, settings.embedder.bulk_waiting
    searches = part_client(name, send, metrics, lanes=[Lane(max_waiting, max_wait_s=max_wait_s)])
    bulk = part_client(name, send, metrics, lanes=[Lane(bulk_waiting)], max_batch=_BULK_HOP_BATCH)
    return lambda message, deadline: (bulk if message.bulk else searches)(message, deadline)


def part_client(
    name: str,
    send: Send[Sent, Result],
    metrics: Metrics,
    *,
    lanes: Sequence[Lane],
    lane_of: Callable[[Sent], int] = lambda message: 0,
    max_batch: int = MAX_HOP_BATCH,
    at_once: Callable[[Sent], bool] = lambda message: False,
) -> MicroBatcher[Sent, Result]:
    """A client of the part `name`."""
    return MicroBatcher(
        name,
        send,
        max_batch=max_batch,
        max_in_flight=HOPS_IN_FLIGHT,
        lanes=lanes,
        lane_of=lane_of,
        catalogue_of=messages.catalogue_of,
        observe_batch=lambda size: metrics.hop_batch(size, part=name),
        at_once=at_once,
    )


def send_to(replica: Streaming[Sent, Result]) -> Send[Sent, Result]:
    """To a replica of this process."""

    async def send(batch: list[QueuedMessage[Sent]], on_result: ResultCallback[Result]) -> list[Result | MatineeError]:
        return await collect(replica.stream([to_wire(queued) for queued in batch]), on_result)

    return send


async def collect(stream: AsyncIterable[Pairs[Result]], on_result: ResultCallback[Result]) -> list[Result | MatineeError]:
    """The results of a batch in their order; `on_result` has had each as soon as it was known."""
    results: dict[int, Result | MatineeError] = {}
    async for pairs in stream:
        for place, result in pairs:
            results[place] = result
            on_result(place, result)
    return [results[place] for place in sorted(results)]


class RetrieverClient:
    """The Retriever: each message has a result of its own type. `here`: it is in this process, so a light ranking is sent at once."""

    def __init__(self, send: Send[RetrieverMessage[object], object], settings: Settings, metrics: Metrics, *, here: bool = False) -> None:
        max_waiting = settings.serving.deployment.max_ongoing_requests
        # Whether a gateway is ready must be known under any load.
        lanes = [Lane(max_waiting), Lane(max_waiting, 0.5, settings.serving.max_wait_s)]
        lane_of: Callable[[object], int] = lambda message: int(not isinstance(message, messages.ReadStatus))  # noqa: E731
        self._searches = part_client(
            "retriever", send, metrics, lanes=lanes, lane_of=lane_of, at_once=lambda message: here and _is_light(message)
        )
        self._bulk = part_client("retriever", send, metrics, lanes=[Lane(max_waiting)], max_batch=_BULK_HOP_BATCH)

    async def __call__(self, message: RetrieverMessage[Result], deadline: float) -> Result:
        inner = messages.inner_of(message)
        bulk = isinstance(inner, _BULK) or (isinstance(inner, messages.Rank) and inner.bulk)
        client = self._bulk if bulk else self._searches
        # One batch has messages of many types. Each names what answers it, which has the type that it declares.
        return cast(Result, await client(message, deadline))


def _is_light(message: RetrieverMessage[object]) -> bool:
    inner = messages.inner_of(message)
    return isinstance(inner, messages.Rank) and is_light(inner.query)
