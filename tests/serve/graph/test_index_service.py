"""Writes to the active index: they go on when their callers have gone."""

import asyncio
from typing import Any

import pytest

from serve.graph import messages
from serve.graph.wire import WireMessage
from tests.serve.graph.retriever_bench import LATER, Bench


async def test_a_write_goes_to_its_end_when_its_caller_gives_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.build(6)
    retriever = await bench.start()
    begun, go_on = asyncio.Event(), asyncio.Event()
    delete = retriever.default.active.delete

    async def slow(id: str) -> Any:
        begun.set()
        await go_on.wait()
        return await delete(id)

    monkeypatch.setattr(retriever.default.active, "delete", slow)
    [(id, _), *_] = (await bench.ask(messages.Page(1)))[0][0]
    call = asyncio.create_task(retriever.call([WireMessage(messages.Delete(id), LATER)]))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()

    async def gone() -> bool:
        return await bench.ask(messages.Fetch((id,))) == [[None]]

    await bench.until(gone)
