"""The whole graph in one process: the real Retriever, embedder and embedded index, without Ray.

    async with build_local_graph(tmp_path, films=FILMS) as service: ...
    with serve_app(lambda: build_local_graph(tmp_path)) as url: ...

Test modules get these as fixtures (`local_service`, `local_app_url`, see `conftest.py`). Does not know pytest.
"""

import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
import uvloop

from matinee import demo
from matinee.catalogue.reader import read_items
from matinee.errors import DeadlineError, MatineeError
from matinee.filters.attributes import Attributes
from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.models.types import Description, Forward, Tokens
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from matinee.vectors import Matrix, Vector
from serve.api.app import create_app
from serve.api.auth import ApiKeys
from serve.graph import messages
from serve.graph.embedder import EmbedderReplica
from serve.graph.gateway import Gateway
from serve.graph.parts import EnhancerPart, Graph
from serve.graph.retriever import RetrieverReplica
from serve.graph.wire import WireMessage, enqueue, to_wire
from serve.placement import process
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S


@cache
def demo_films() -> tuple[Item, ...]:
    """The bundled films."""
    return tuple(read_items(str(demo.FILMS)))


class Remembered:
    """The forward pass of an encoder, which runs once for each text: most tests index the same few films."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.call_tokens = forward.call_tokens
        self._vectors: dict[bytes, Vector] = {}

    def __call__(self, inputs: Tokens) -> Matrix:
        lengths = inputs["attention_mask"].sum(axis=1)
        texts = [ids[:length].tobytes() for ids, length in zip(inputs["input_ids"], lengths, strict=True)]
        new = [row for row, text in enumerate(texts) if text not in self._vectors]
        if new:
            longest = lengths[new].max()
            vectors = self._forward({name: values[new, :longest] for name, values in inputs.items()})
            self._vectors |= {texts[row]: vector for row, vector in zip(new, vectors, strict=True)}
        return np.stack([self._vectors[text] for text in texts])


@cache
def embedder_replica() -> EmbedderReplica:
    """The real embedder at fp32, which needs no conversion; loaded once a process."""
    replica = EmbedderReplica(local_settings(Path("/nonexistent")), Metrics(MemorySink()))
    replica.open()
    embedder = replica.slot.model
    embedder._forward = Remembered(embedder._forward)
    return replica


@cache
def page_films() -> tuple[Item, ...]:
    """Enough of them to fill pages under any filter, with those that tests of the page name."""
    return tuple(film for i, film in enumerate(demo_films()) if i % 3 == 0 or film.title in ("Amélie", "Inception", "Titanic"))


def local_settings(home: Path, **overrides: Any) -> Settings:
    """Settings under `home`, whatever the environment says."""
    return load_settings({"home": home, "embedder": {"precision": "fp32", "threads": 1}} | overrides, environ={})


@asynccontextmanager
async def build_local_graph(
    home: Path,
    *,
    films: Iterable[Item],
    enhancer: EnhancerPart | None = None,
    settings: Settings | None = None,
    attributes: Attributes | None = None,
) -> AsyncIterator[Gateway]:
    """A `Gateway` over a fresh index of `films` (none at all: no index), closed at the end."""
    settings = settings or local_settings(home)
    if items := list(films):
        await build_index(settings, items, attributes)
    metrics = Metrics(MemorySink())
    retriever = RetrieverReplica(settings, metrics)
    await retriever.start()
    replica = embedder_replica()
    parts: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {"embedder": replica.info}
    if enhancer is not None:
        parts["enhancer"] = _no_info
    graph = Graph(as_part(replica.call), as_part(retriever.call), enhancer, parts)
    try:
        yield Gateway(settings, graph, metrics)
    finally:
        await retriever.close()


async def build_index(settings: Settings, items: Sequence[Item], attributes: Attributes | None = None) -> None:
    """Build a version of `items` and make it current, as an ingest does."""
    embedder: Embedder = embedder_replica().slot.model
    store = open_store(settings)
    try:
        await Build(store, PointMaker(embedder, settings.index.recipe), settings.catalogue, "local", attributes=attributes).run(items)
    finally:
        await store.close()


def as_part(call: Callable[[Sequence[WireMessage[Any]]], Awaitable[list[Any]]]) -> Any:
    """A replica's batch call as the gateway sees it through a handle: one message in, its result or its error out."""

    async def part(message: Any, deadline: float) -> Any:
        [result] = await call([to_wire(enqueue(message, deadline))])
        if isinstance(result, MatineeError):
            raise result
        return result

    return part


async def _no_info() -> dict[str, Any]:
    return {"model": "fake", "trouble": None}


@dataclass
class FakeEnhancer:
    """Describes in a fixed form; titles in `marked` get a violation, those in `late` nothing in time; `fails` is raised while it is set."""

    marked: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    fails: MatineeError | None = None

    async def __call__(self, message: messages.Describe, deadline: float) -> Description:
        if self.fails is not None:
            raise self.fails
        if message.item.title in self.late:
            raise DeadlineError("late")
        title, bad = message.item.title, message.item.title in self.marked
        return Description(
            text=f"{title}, in other words.",
            source="template" if bad else "model",
            violations=("a name that the metadata does not have",) if bad else (),
            adherence=0.5 if bad else 1.0,
            attempts=2 if bad else 1,
            tokens=8,
            model="fake",
            marked=bad,
            elapsed_s=0.01,
        )


@contextmanager
def serve_app(make: Callable[[], AbstractAsyncContextManager[Gateway]]) -> Iterator[str]:
    """The HTTP app of a local graph on a free port, in a thread; yields its URL."""
    started = threading.Event()
    running = _Running()
    thread = threading.Thread(target=lambda: uvloop.run(_serve(make, started, running)), name="local-app", daemon=True)
    thread.start()
    if not started.wait(HANG_S) or running.server is None:
        raise RuntimeError(f"the local app did not start: {running.error!r}")
    try:
        yield running.url
    finally:
        running.server.should_exit = True
        thread.join(HANG_S)


@dataclass
class _Running:
    server: uvicorn.Server | None = None
    url: str = ""
    error: BaseException | None = None


async def _serve(make: Callable[[], AbstractAsyncContextManager[Gateway]], started: threading.Event, running: _Running) -> None:
    try:
        async with make() as service:
            app = create_app(service, ApiKeys(service.settings.serving))
            # It listens already, so whoever comes before the server is up waits a moment and is answered.
            with socket.create_server(("127.0.0.1", 0)) as listener:
                running.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                running.server = uvicorn.Server(process.config(app, service.settings))
                started.set()
                await running.server.serve(sockets=[listener])
    except BaseException as error:
        running.error = error
        raise
    finally:
        started.set()
