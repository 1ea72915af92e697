"""One text search, traced: on its way to the encoder it passes the functions that `docs/architecture.md` lists, in both placements.

With its ranking, until its response, it enters at most as many functions as that page says.
"""

import asyncio
import dis
import inspect
import re
import sys
import warnings
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

import httpx
import pytest

ROOT = Path(__file__).parents[2]
OWN = (f"{ROOT}/serve/", f"{ROOT}/matinee/")
MAX_FUNCTIONS, MAX_FILES = 12, 15
_YIELD = dis.opmap["YIELD_VALUE"]


class Tracer:
    """Our own functions from the start of a request to the end of `last`.

    `path` has those that are under way when `last` begins: on its stack, or waiting for it.
    Context managers are around the path, not on it.
    """

    def __init__(self, last: CodeType) -> None:
        self._last = last
        self._open: dict[int, FrameType] = {}
        self._over = False
        self.path: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if self._over or not code.co_filename.startswith(OWN):
            return
        if event == "call":
            self._open.setdefault(id(frame), frame)
            if code is self._last:
                codes = [f.f_code for f in self._open.values() if not f.f_code.co_flags & inspect.CO_GENERATOR]
                self.path = [(_file(c), c.co_qualname.replace(".<locals>", "")) for c in dict.fromkeys(codes)]
        elif event == "return" and code.co_code[frame.f_lasti] != _YIELD:
            self._open.pop(id(frame), None)
            self._over = code is self._last


class Counter:
    """Our own functions that were entered, each once; what is written inside an expression is part of the function around it."""

    def __init__(self) -> None:
        self.entered: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OWN) and not code.co_name.startswith("<"):
            self.entered.add((_file(code), code.co_qualname))


def _file(code: CodeType) -> str:
    return Path(code.co_filename).relative_to(ROOT).as_posix()


class Handle:
    """Stands for Ray's handle: calls the replica in a task, which can be cancelled, as Ray's answer can."""

    def __init__(self, replica: Any) -> None:
        self.call = self
        self._replica = replica

    def options(self, *, stream: bool) -> "Handle":
        return self

    def remote(self, batch: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self._replica.call(batch))


async def search_traced(local_graph: Any, home: Path, placement: Literal["process", "ray"]) -> Tracer:
    """A search over an Embedder that is connected as in one process, or over a handle as Ray's. The Retriever is none of ours here."""
    from matinee.models.embedder import Embedder
    from matinee.recommend.queries import RankedItems
    from serve.api.app import create_app
    from serve.api.auth import ApiKeys
    from serve.graph.clients import model_client
    from serve.graph.embedder import EmbedderReplica
    from serve.graph.gateway import Gateway
    from serve.graph.loaded_part import LoadedPart
    from serve.graph.parts import Graph
    from serve.telemetry.metrics import Metrics
    from tests.memory_sink import MemorySink

    class Loaded(EmbedderReplica):
        def load(self, settings: Any) -> Embedder:
            model: Embedder = local_graph.embedder_replica().slot.model
            # The thread that loads the model works with it too.
            sys.setprofile(tracer)
            return model

    async def retriever(message: Any, deadline: float) -> Any:
        return RankedItems(b"[]", 0, "cosine")

    settings, metrics, tracer = local_graph.local_settings(home), Metrics(MemorySink()), Tracer(Embedder.encode.__code__)
    embedder: Any
    if placement == "process":
        embedder = LoadedPart("embedder", "minilm", lambda: Loaded(settings, metrics))
        await embedder.load()
    else:
        with warnings.catch_warnings():
            # Its own, at import, are Ray's business.
            warnings.simplefilter("ignore")
            from serve.graph.handles import RayRemote
        replica = Loaded(settings, metrics)
        replica.reconfigure({})
        embedder = model_client("embedder", RayRemote[Any, Any](Handle(replica)), settings, metrics)  # type: ignore[arg-type]
    gateway = Gateway(settings, Graph(embedder, retriever, None, {}, placement), metrics)
    transport = httpx.ASGITransport(create_app(gateway, ApiKeys(settings.serving)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.get("/livez")
        sys.setprofile(tracer)
        try:
            response = await client.post("/v1/search", json={"text": "robots in love"})
        finally:
            sys.setprofile(None)
    assert response.status_code == 200
    return tracer


@pytest.mark.parametrize(("placement", "column"), [("ray", 0), ("process", 1)])
def test_a_search_passes_the_functions_that_the_document_lists(
    local_graph: Any, tmp_path: Path, placement: Literal["process", "ray"], column: int
) -> None:
    tracer = asyncio.run(search_traced(local_graph, tmp_path, placement))
    written = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d*) \| (\d*) \| `([\w/.]+)` \| `([\w.]+)` \|", written, re.MULTILINE)
    listed = [(file, function) for *_, file, function in sorted((row for row in rows if row[column]), key=lambda row: int(row[column]))]
    assert tracer.path == listed
    assert len(listed) <= MAX_FUNCTIONS
    assert len({file for file, _ in listed}) <= MAX_FILES


async def test_a_search_enters_at_most_the_functions_that_the_document_counts(
    local_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole graph of one process, with its index."""
    from serve.api.app import create_app
    from serve.api.auth import ApiKeys
    from serve.graph import in_process
    from serve.graph.embedder import EmbedderReplica
    from serve.graph.gateway import Gateway
    from serve.telemetry.metrics import Metrics
    from tests.memory_sink import MemorySink

    class Loaded(EmbedderReplica):
        def load(self, settings: Any) -> Any:
            # The thread that loads the model works with it too.
            sys.setprofile(counter)
            return local_graph.embedder_replica().slot.model

    counter, settings = Counter(), local_graph.local_settings(tmp_path, enhancer={"enabled": False})
    await local_graph.build_index(settings, local_graph.demo_films()[:6])
    monkeypatch.setattr(in_process, "_embedder", Loaded)
    async with in_process.graph_in_process(settings, lambda part: Metrics(MemorySink())) as parts:
        await parts.load()
        await parts._retriever.default.thread.run(lambda: sys.setprofile(counter))
        gateway = Gateway(settings, parts.graph, Metrics(MemorySink()))
        transport = httpx.ASGITransport(create_app(gateway, ApiKeys(settings.serving)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/livez")
            counter.entered.clear()
            sys.setprofile(counter)
            try:
                response = await client.post("/v1/search", json={"text": "robots in love"})
            finally:
                sys.setprofile(None)
    assert response.json()["items"]
    functions, files = len(counter.entered), len({file for file, _ in counter.entered})
    written = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    [counts] = re.findall(r"enters (\d+) functions in (\d+) files", written)
    assert functions <= int(counts[0]), sorted(counter.entered)
    assert files <= int(counts[1]), sorted(counter.entered)
