"""A model in the server's own process: loaded once, when it is first needed; what waits for it, and what a failed load does."""

import asyncio
import gc
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.errors import ModelError
from serve.errors import UnavailableError
from serve.graph import in_process, loaded_part
from serve.graph.loaded_part import LoadedPart
from serve.graph.wire import WireMessage
from serve.placement import process
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink
from tests.waiting import HANG_S, until_async


class Replica:
    """Loads once `gate` is open, and then answers in capitals. `fails` is raised by a load while it is set."""

    def __init__(self, *, loads_at_once: bool = False) -> None:
        self.gate = threading.Event()
        if loads_at_once:
            self.gate.set()
        self.configured: list[Mapping[str, object]] = []
        self.fails: Exception | None = None
        self.loads = 0
        self.closed = False

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self.loads += 1
        self.configured.append(user_config)
        assert self.gate.wait(HANG_S)
        if self.fails is not None:
            raise self.fails

    async def call(self, batch: list[WireMessage[str]]) -> list[Any]:
        return [ModelError("bad") if message == "bad" else message.upper() for message, *_ in batch]

    def check_health(self) -> None: ...

    async def info(self) -> dict[str, Any]:
        return {"model": "loaded one", "trouble": None}

    def close(self) -> None:
        self.closed = True


def part_of(replica: Replica) -> LoadedPart[str, str]:
    return LoadedPart("enhancer", "one", lambda: replica)  # type: ignore[arg-type,return-value]


def later() -> float:
    return time.monotonic() + HANG_S


def test_messages_wait_for_one_load() -> None:
    async def run() -> None:
        replica = Replica()
        part = part_of(replica)
        assert (await part.info(), replica.loads) == ({"model": "one", "loaded": False, "trouble": None}, 0)
        asked = [asyncio.create_task(part(text, later())) for text in ("a", "b")]
        with pytest.raises(UnavailableError, match="still loads"):
            await part("late", time.monotonic() + 0.2)
        replica.gate.set()
        assert await asyncio.gather(*asked) == ["A", "B"]
        with pytest.raises(ModelError, match="bad"):
            await part("bad", later())
        assert (await part.info())["model"] == "loaded one"
        await part.close()
        assert (replica.loads, replica.closed) == (1, True)

    asyncio.run(run())


def test_a_load_that_fails_is_told_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replica = Replica()
        replica.gate.set()
        replica.fails = ModelError("a tensor is missing")
        part = part_of(replica)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="a tensor is missing"):
                await part("a", later())
        assert ((await part.info())["trouble"], replica.loads) == ("a tensor is missing", 1)
        replica.fails = None
        monkeypatch.setattr(loaded_part, "RETRY_S", 0.0)
        assert await part("a", later()) == "A"
        assert (replica.loads, (await part.info())["trouble"]) == (2, None)
        await part.close()

    asyncio.run(run())


async def test_garbage_of_the_start_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked through no more: what nobody holds has to go before."""
    steps: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: steps.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: steps.append("freeze"))
    serving: Any = asyncio.get_running_loop().create_future()
    parts: Any = SimpleNamespace(load=lambda: asyncio.sleep(0), check_health=lambda: serving.set_result(None))
    assert await process._watch(parts, serving) is None
    assert steps == ["collect", "freeze"]


async def test_an_update_while_a_model_loads_is_not_lost() -> None:
    replica = Replica()
    part = part_of(replica)
    part.reconfigure({"adapter": "one"})
    asked = asyncio.create_task(part("a", later()))
    await until_async(lambda: replica.loads == 1, "the load begins")
    part.reconfigure({"adapter": "two"})
    replica.gate.set()
    await asked
    part.reconfigure({"adapter": "three"})
    assert replica.configured == [{"adapter": name} for name in ("one", "two", "three")]
    await part.close()


@pytest.mark.parametrize("at_start", [False, True])
async def test_the_enhancer_loads_behind_the_embedder_where_the_settings_say_so(
    local_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_start: bool
) -> None:
    embedder, enhancer = Replica(), Replica(loads_at_once=True)
    monkeypatch.setattr(in_process, "_embedder", lambda *_: embedder)
    monkeypatch.setattr(in_process, "_enhancer", lambda *_: enhancer)
    settings = local_graph.local_settings(tmp_path, enhancer={"load_at_start": at_start})
    async with in_process.graph_in_process(settings, lambda part: Metrics(NullSink())) as parts:
        loading = asyncio.create_task(parts.load())
        await until_async(lambda: embedder.loads == 1, "the embedder loads")
        assert enhancer.loads == 0
        embedder.gate.set()
        await loading
        assert enhancer.loads == int(at_start)
        assert parts.graph.enhancer is not None
        await parts.graph.enhancer("a", later())  # type: ignore[arg-type]
    assert (embedder.loads, enhancer.loads, enhancer.closed) == (1, 1, True)


@pytest.mark.parametrize(
    ("fault", "told"), [(ModelError("a tensor is missing"), "a tensor is missing"), (RuntimeError("odd"), "the enhancer did not load: odd")]
)
async def test_an_enhancer_that_fails_at_the_start_ends_the_server(
    local_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: str
) -> None:
    enhancer = Replica(loads_at_once=True)
    enhancer.fails = fault
    monkeypatch.setattr(in_process, "_embedder", lambda *_: Replica(loads_at_once=True))
    monkeypatch.setattr(in_process, "_enhancer", lambda *_: enhancer)
    settings = local_graph.local_settings(tmp_path, enhancer={"load_at_start": True})
    async with in_process.graph_in_process(settings, lambda part: Metrics(NullSink())) as parts:
        serving: Any = asyncio.get_running_loop().create_future()
        trouble = await process._watch(parts, serving)
    assert (str(trouble), enhancer.closed) == (told, True)
