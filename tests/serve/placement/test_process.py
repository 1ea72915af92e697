"""The start of a server in one process: what it leaves to Python's collector."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from serve.placement import process


async def test_garbage_of_the_start_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is looked through no more: what nobody holds has to go before."""
    steps: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: steps.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: steps.append("freeze"))
    serving: Any = asyncio.get_running_loop().create_future()
    parts: Any = SimpleNamespace(load=lambda: asyncio.sleep(0), check_health=lambda: serving.set_result(None))
    assert await process._watch(parts, serving) is None
    assert steps == ["collect", "freeze"]
