"""A model's replica: it loads once, batches of several gateways join, each message keeps its deadline, and updates replace the model."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.errors import MatineeError, ModelError, OverloadedError
from matinee.settings.models import EmbedderSettings
from serve.errors import UnavailableError
from serve.graph import model_replica
from serve.graph.messages import Embed
from serve.graph.model_replica import ModelReplica
from serve.graph.wire import QueuedMessage, WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until_async

LATER = 3600.0


class Model:
    """Knows its name only."""

    def __init__(self, name: str) -> None:
        self.name = name

    def info(self) -> dict[str, Any]:
        return {"model": self.name}


class Replica(ModelReplica[Model, EmbedderSettings, Embed, str]):
    """Loads once `load_gate` is open, or raises `fails`. Answers with the model's name and the first text, once `gate` is open."""

    def __init__(self, settings: Any, sink: MemorySink) -> None:
        super().__init__("embedder", settings.embedder, settings, Metrics(sink), max_batch=100, max_waiting=100, max_wait_s=10.0)
        self.gate, self.load_gate = threading.Event(), threading.Event()
        self.load_gate.set()
        self.fails: Exception | None = None
        self.at_start = True
        self.loads: list[str] = []
        self.begun: list[list[str]] = []
        self.batches: list[list[str]] = []

    @property
    def loads_at_start(self) -> bool:
        return self.at_start

    def load_model(self, settings: EmbedderSettings) -> Model:
        self.loads.append(settings.model)
        assert self.load_gate.wait(HANG_S)
        if self.fails is not None:
            raise self.fails
        if settings.model == "broken":
            raise ModelError("no such model")
        return Model(settings.model)

    def cost(self, message: Embed) -> int:
        return 1

    def labels(self, model: Model) -> tuple[str, str, str]:
        return model.name, "fp32", "f" * 64

    def _answer(self, model: Model, batch: Sequence[QueuedMessage[Embed]]) -> list[str | MatineeError]:
        texts = [message.texts[0] for message, *_ in batch]
        self.begun.append(texts)
        assert self.gate.wait(HANG_S)
        self.batches.append(texts)
        return [f"{model.name}: {text}" if text != "bad" else ModelError("bad text") for text in texts]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def unloaded(local_graph: Any, tmp_path: Path, sink: MemorySink) -> Iterator[Replica]:
    replica = Replica(local_graph.local_settings(tmp_path, embedder={"model": "one"}), sink)
    yield replica
    replica.load_gate.set()
    replica.gate.set()


@pytest.fixture
def replica(unloaded: Replica) -> Replica:
    unloaded.open()
    return unloaded


def test_a_share_of_a_gpu_limits_the_replica_before_its_model_is_loaded(
    local_graph: Any, tmp_path: Path, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(model_replica, "limit_memory", limits.append)
    replica = Replica(local_graph.local_settings(tmp_path, embedder={"model": "one", "deployment": {"num_gpus": 0.25}}), sink)
    monkeypatch.setattr(replica, "load_model", lambda _: Model(str(limits)))
    replica.open()
    assert replica.slot.model.info() == {"model": "[0.25]"}


def batch(*texts: str, left_s: float = LATER) -> list[WireMessage[Embed]]:
    return [WireMessage(Embed((text,)), left_s) for text in texts]


async def reached(replica: Replica, texts: str) -> asyncio.Task[Any]:
    """A call that is under way in the model's thread."""
    call = asyncio.create_task(replica.call(batch(*texts)))
    await until_async(lambda: [*texts] in replica.begun)
    return call


async def test_batches_of_several_gateways_join_while_the_model_is_busy(replica: Replica) -> None:
    first = await reached(replica, "a")
    others = [asyncio.create_task(replica.call(batch(*texts))) for texts in ("bc", "de")]
    await until_async(lambda: replica.batcher.waiting == 4)
    replica.gate.set()
    assert await asyncio.gather(first, *others) == [["one: a"], ["one: b", "one: c"], ["one: d", "one: e"]]
    assert replica.batches == [["a"], ["b", "c", "d", "e"]]


async def test_an_error_is_its_messages_alone(replica: Replica) -> None:
    replica.gate.set()
    good, bad = await replica.call(batch("good", "bad"))
    assert good == "one: good"
    assert isinstance(bad, ModelError)


async def test_a_message_whose_deadline_passes_while_it_waits_is_not_worked_on(replica: Replica) -> None:
    first = await reached(replica, "a")
    [late] = await replica.call(batch("late", left_s=0.05))
    assert isinstance(late, OverloadedError)
    replica.gate.set()
    await first
    assert await replica.call(batch("b")) == ["one: b"]
    assert replica.batches == [["a"], ["b"]]


async def test_messages_keep_the_time_since_they_wait(replica: Replica, sink: MemorySink) -> None:
    seen: list[QueuedMessage[Embed]] = []
    replica._answer = lambda model, batch: seen.extend(batch) or ["x"] * len(batch)  # type: ignore[func-returns-value, method-assign]
    await replica.call([WireMessage(Embed(("a",)), LATER, 7.0, "00-trace")])
    assert 7 <= time.monotonic() - seen[0].since < HANG_S
    assert seen[0].traceparent == "00-trace"


async def test_an_update_replaces_the_model_and_one_that_fails_does_not(replica: Replica, sink: MemorySink) -> None:
    replica.gate.set()

    async def updated(model: str) -> list[Any]:
        replica.update({"model": model})
        for thread in threading.enumerate():
            if thread.name == "embedder-swap":
                await asyncio.to_thread(thread.join, HANG_S)
        return await replica.call(batch("a"))

    assert await updated("two") == ["two: a"]
    assert await updated("broken") == ["two: a"]
    info = await replica.info()
    assert (info["model"], info["trouble"]) == ("two", "the last model update failed: no such model")
    models = {dict(tags)["model"]: value for (name, tags), value in sink.values.items() if name == "matinee_model_info"}
    assert models == {"one": 0, "two": 1}
    assert await updated("one") == ["one: a"]


async def test_a_model_that_hangs_makes_its_replica_ill_once_nobody_waits(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    replica.slot._hang_s = 0.0
    replica.check_health()
    hangs = await reached(replica, "a")
    replica.check_health()
    [late] = await replica.call(batch("late", left_s=0.05))
    assert isinstance(late, OverloadedError)
    replica.check_health()
    hangs.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hangs
    later = time.monotonic() + 2 * LATER
    monkeypatch.setattr("serve.graph.model_slot.time", SimpleNamespace(monotonic=lambda: later, perf_counter=time.perf_counter))
    with pytest.raises(RuntimeError, match="has worked on one batch for more than 0 s"):
        replica.check_health()
    monkeypatch.undo()
    replica.gate.set()
    assert await replica.call(batch("b")) == ["one: b"]
    replica.check_health()


async def test_the_place_of_work_that_nobody_waits_for_is_free_when_the_thread_is(replica: Replica) -> None:
    hangs = await reached(replica, "a")
    hangs.cancel()
    others = [asyncio.create_task(replica.call(batch(text))) for text in "bc"]
    await until_async(lambda: replica.batcher.waiting == 2)
    replica.gate.set()
    await asyncio.gather(*others)
    assert replica.batches == [["a"], ["b", "c"]]


def later() -> float:
    return time.monotonic() + HANG_S


async def test_messages_wait_for_one_load(unloaded: Replica) -> None:
    assert (await unloaded.info(), unloaded.loads) == ({"model": "one", "loaded": False, "trouble": None}, [])
    unloaded.check_health()
    unloaded.gate.set()
    unloaded.load_gate.clear()
    waiting = [asyncio.create_task(unloaded(Embed((text,)), later())) for text in ("a", "b")]
    batches = [asyncio.create_task(unloaded.call(batch("c", "d")))]
    with pytest.raises(UnavailableError, match="still loads"):
        await unloaded(Embed(("late",)), time.monotonic() + 0.2)
    unloaded.load_gate.set()
    assert await asyncio.gather(*waiting) == ["one: a", "one: b"]
    assert await asyncio.gather(*batches) == [["one: c", "one: d"]]
    with pytest.raises(ModelError, match="bad"):
        await unloaded(Embed(("bad",)), later())
    assert (await unloaded.info())["model"] == "one"
    await unloaded.close()
    assert unloaded.loads == ["one"]


async def test_a_load_that_fails_is_explained_and_tried_again_later(unloaded: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    unloaded.gate.set()
    unloaded.fails = ModelError("a tensor is missing")
    for _ in range(2):
        with pytest.raises(UnavailableError, match="a tensor is missing"):
            await unloaded(Embed(("a",)), later())
    assert ((await unloaded.info())["trouble"], unloaded.loads) == ("a tensor is missing", ["one"])
    unloaded.fails = None
    monkeypatch.setattr(model_replica, "RETRY_S", 0.0)
    assert await unloaded(Embed(("a",)), later()) == "one: a"
    assert (unloaded.loads, (await unloaded.info())["trouble"]) == (["one"] * 2, None)


async def test_an_update_while_a_model_loads_is_not_lost(unloaded: Replica) -> None:
    unloaded.gate.set()
    unloaded.load_gate.clear()
    unloaded.update({"model": "two"})
    first = asyncio.create_task(unloaded(Embed(("a",)), later()))
    await until_async(lambda: unloaded.loads == ["two"], "the load begins")
    unloaded.update({"model": "three"})
    unloaded.load_gate.set()
    assert await first in ("two: a", "three: a")
    await until_async(lambda: unloaded.slot.model.name == "three")
    assert unloaded.loads == ["two", "three"]


async def test_a_model_loads_with_the_replica_or_with_the_first_message(unloaded: Replica) -> None:
    unloaded.gate.set()
    unloaded.at_start = False
    await unloaded.reconfigure({"model": "broken"})
    assert unloaded.loads == []
    with pytest.raises(UnavailableError, match="no such model"):
        await unloaded.call(batch("a"))
    unloaded.at_start = True
    with pytest.raises(ModelError, match="no such model"):
        await unloaded.reconfigure({"model": "broken"})
    await unloaded.reconfigure({"model": "two"})
    assert [pairs async for pairs in unloaded.stream(batch("a"))] == [[(0, "two: a")]]
    assert abs(await unloaded.clock() - time.time()) < 60
