"""The graph of one process: which models load at the start, in which order, and what a load that fails does to the server."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.errors import ModelError
from serve.graph import in_process
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.placement import process
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink
from tests.waiting import until_async

MODEL = SimpleNamespace(
    info=lambda: {"precision": "fp32", "digest": "d"}, model_id="m", name="m", precision="fp32", fingerprint="f", trouble=None
)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The names of the models that were loaded; the embedder's waits for `gate`, the enhancer's raises `fails` where it is set."""
    loads = SimpleNamespace(names=[], gate=threading.Event(), fails=None)

    class Embedder(EmbedderReplica):
        def load_model(self, settings: Any) -> Any:
            loads.names.append("embedder")
            loads.gate.wait()
            return MODEL

    class Enhancer(EnhancerReplica):
        def load_model(self, settings: Any) -> Any:
            loads.names.append("enhancer")
            if loads.fails is not None:
                raise loads.fails
            return MODEL

    monkeypatch.setattr(in_process, "EmbedderReplica", Embedder)
    monkeypatch.setattr(in_process, "EnhancerReplica", Enhancer)
    return loads


@pytest.mark.parametrize("at_start", [False, True])
async def test_the_enhancer_loads_behind_the_embedder_where_the_settings_say_so(
    local_graph: Any, tmp_path: Path, loads: SimpleNamespace, at_start: bool
) -> None:
    settings = local_graph.local_settings(tmp_path, enhancer={"load_at_start": at_start})
    async with in_process.graph_in_process(settings, lambda part: Metrics(NullSink())) as parts:
        loading = asyncio.create_task(parts.load())
        await until_async(lambda: loads.names == ["embedder"], "the embedder loads")
        loads.gate.set()
        await loading
        assert loads.names == ["embedder", *["enhancer"] * at_start]
        assert [await info() for info in parts.graph.infos.values()][1].get("loaded", True) == at_start
        parts.check_health()


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [(ModelError("a tensor is missing"), "a tensor is missing"), (RuntimeError("odd"), "the enhancer did not load: odd")],
)
async def test_an_enhancer_that_fails_at_the_start_ends_the_server(
    local_graph: Any, tmp_path: Path, loads: SimpleNamespace, fault: Exception, trouble: str
) -> None:
    loads.gate.set()
    loads.fails = fault
    settings = local_graph.local_settings(tmp_path, enhancer={"load_at_start": True})
    async with in_process.graph_in_process(settings, lambda part: Metrics(NullSink())) as parts:
        serving: Any = asyncio.get_running_loop().create_future()
        assert str(await process._watch(parts, serving)) == trouble
