"""A model in the server's own process: loaded once, when it is first needed; what waits for it, and what a failed load does."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.errors import ModelError
from serve.errors import UnavailableError
from serve.graph import in_process
from serve.graph.hops import Hop
from serve.graph.in_process import LoadedPart
from serve.placement import process
from tests.waiting import HANG_S


class Replica:
    """Loads once `gate` is open, and then answers in capitals. `fails` is raised by a load while it is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.fails: Exception | None = None
        self.loads = 0
        self.closed = False

    def reconfigure(self, user_config: dict[str, object]) -> None:
        self.loads += 1
        assert self.gate.wait(HANG_S)
        if self.fails is not None:
            raise self.fails

    async def call(self, batch: list[Hop[str]]) -> list[Any]:
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
        monkeypatch.setattr(in_process, "RETRY_S", 0.0)
        assert await part("a", later()) == "A"
        assert (replica.loads, (await part.info())["trouble"]) == (2, None)
        await part.close()

    asyncio.run(run())


async def test_garbage_of_the_start_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked through no more: what nobody holds has to go before."""
    steps: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: steps.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: steps.append("freeze"))
    loaded, serving = asyncio.create_task(asyncio.sleep(0)), asyncio.get_running_loop().create_future()
    parts: Any = SimpleNamespace(embedder=SimpleNamespace(load=lambda: loaded), check_health=lambda: serving.set_result(None))
    assert await process._watch(parts, serving) is None
    assert steps == ["collect", "freeze"]
