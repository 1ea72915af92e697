"""A part without a replica: its callers wait for nothing, one call starts it, and looking at it starts nothing."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from matinee.errors import DeadlineError
from matinee.items import Item
from serve.errors import StartingError, UnavailableError
from serve.graph import standby
from serve.graph.messages import Describe, Embed, Json
from serve.graph.standby import FIRST_GUESS_S, Standby
from tests.serve.api_client import Api, error
from tests.waiting import until_async

ITEM = {"kind": "film", "title": "Solaris", "year": 1972, "genres": ["Drama"]}
LATER = float("inf")


class Replicas:
    """Those of a part: `count` run, and a start ends when `up` is set."""

    def __init__(self, count: int = 0) -> None:
        self.count, self.counts, self.starts = count, 0, 0
        self.up = asyncio.Event()
        self.fails: Exception | None = None
        self.standby = Standby("enhancer", "gemma", self._count, self._start)

    async def _count(self) -> int:
        self.counts += 1
        if self.fails is not None:
            raise self.fails
        return self.count

    async def _start(self) -> None:
        self.starts += 1
        await self.up.wait()
        self.count = 1

    async def info(self) -> Json:
        return {"model": "gemma", "loaded": True}


async def answered(message: Describe | Embed, deadline: float) -> str:
    return "by the part"


async def instead(message: Describe | Embed, deadline: float) -> str:
    return "by the fallback"


DESCRIBE, QUERY = Describe(Item(title="Solaris")), Embed(("robots",))


async def test_calls_are_refused_at_once_while_one_start_is_under_way_and_answered_after_it() -> None:
    replicas = Replicas()
    call = replicas.standby.guard(answered)
    for _ in range(3):
        with pytest.raises(StartingError, match=r"enhancer: no replica runs now, and one starts") as raised:
            await call(DESCRIBE, LATER)
        assert 0 < raised.value.wait_s <= FIRST_GUESS_S
    await until_async(lambda: replicas.starts)
    replicas.up.set()
    await until_async(lambda: replicas.count)
    await asyncio.sleep(0)
    assert await call(DESCRIBE, LATER) == "by the part"
    assert replicas.starts == 1


async def test_the_next_start_is_said_to_take_as_long_as_the_last_one() -> None:
    replicas = Replicas()
    replicas.up.set()
    replicas.standby.start()
    await until_async(lambda: replicas.count)
    replicas.up.clear()
    replicas.count = 0
    assert not await replicas.standby.runs()
    with pytest.raises(StartingError) as raised:
        await replicas.standby.guard(answered)(DESCRIBE, LATER)
    assert raised.value.wait_s < FIRST_GUESS_S


async def test_counts_hold_for_a_moment_and_are_not_asked_for_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "CHECKED_S", LATER)
    replicas = Replicas(1)
    await replicas.standby.runs()
    call = replicas.standby.guard(answered)
    assert [await call(DESCRIBE, LATER) for _ in range(5)] == ["by the part"] * 5
    assert replicas.counts == 1


async def test_a_call_that_waited_for_a_replica_that_had_just_gone_starts_one() -> None:
    replicas = Replicas(1)

    async def late(message: Describe, deadline: float) -> str:
        replicas.count = 0
        raise DeadlineError("no answer within the deadline")

    with pytest.raises(StartingError):
        await replicas.standby.guard(late)(DESCRIBE, LATER)
    await until_async(lambda: replicas.starts)


async def test_a_late_answer_of_a_replica_that_runs_stays_late() -> None:
    async def late(message: Describe, deadline: float) -> str:
        raise DeadlineError("no answer within the deadline")

    with pytest.raises(DeadlineError):
        await Replicas(1).standby.guard(late)(DESCRIBE, LATER)


async def test_a_fallback_takes_what_somebody_waits_for_and_bulk_is_asked_to_come_again() -> None:
    replicas = Replicas()
    call = replicas.standby.guard(answered, instead)
    assert await call(QUERY, LATER) == "by the fallback"
    await until_async(lambda: replicas.starts)
    with pytest.raises(StartingError):
        await call(Embed(("robots",), bulk=True), LATER)
    replicas.up.set()
    await until_async(lambda: replicas.count)
    assert await call(QUERY, LATER) == "by the part"


async def test_whoever_only_looks_starts_nothing() -> None:
    replicas = Replicas()
    assert await replicas.standby.info(replicas.info)() == {"model": "gemma", "loaded": False, "trouble": None}
    with pytest.raises(StartingError, match="the next request that needs one starts it"):
        await replicas.standby.only_running(replicas.info)()
    assert replicas.starts == 0
    replicas.count = 1
    assert (await replicas.standby.info(replicas.info)())["loaded"] is True
    assert (await replicas.standby.only_running(replicas.info)())["loaded"] is True


async def test_a_start_that_fails_is_told_and_the_next_call_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "START_S", 0)
    replicas = Replicas()
    call = replicas.standby.guard(answered)
    for starts in (1, 2):
        with pytest.raises(StartingError):
            await call(DESCRIBE, time.monotonic())
        await until_async(lambda starts=starts: replicas.starts == starts)
        await asyncio.sleep(0.01)
    assert (await replicas.standby.info(replicas.info)())["trouble"] == "no replica within 0 s: is there a node for it?"


async def test_a_part_whose_replicas_nobody_can_count_is_called() -> None:
    replicas = Replicas()
    replicas.fails = UnavailableError("the controller does not answer")
    assert await replicas.standby.guard(answered)(DESCRIBE, LATER) == "by the part"


async def test_without_an_enhancer_answers_degrade_describe_is_503_and_the_server_stays_ready(
    bent: Callable[..., AbstractAsyncContextManager[Api]],
) -> None:
    replicas = Replicas()
    parts: dict[str, Any] = {"enhancer": replicas.standby.guard(answered)}
    async with bent(parts=parts) as api:
        api.service.graph.infos["enhancer"] = replicas.standby.info(replicas.info)
        assert (await api.get("/readyz")).json() == {"ready": True, "reasons": []}
        info = (await api.get("/v1/info")).json()
        assert (info["enhancer"]["loaded"], info["degraded"]) == (False, [])
        assert replicas.starts == 0
        recommended = await api.post("/v1/recommend", {"likes": [{"item": ITEM}], "enhance": True, "k": 2})
        assert (recommended.status_code, recommended.json()["degraded"]) == (200, ["enhancer"])
        refused = await api.post("/v1/describe", {"item": ITEM})
        assert error(refused) == (503, "unavailable")
        assert 1 < int(refused.headers["retry-after"]) <= FIRST_GUESS_S
        assert "one starts; ask again in about" in refused.json()["message"]
        await until_async(lambda: replicas.starts)
        assert (await api.get("/readyz")).status_code == 200


async def test_without_an_embedder_texts_are_503_and_similar_items_are_answered(
    bent: Callable[..., AbstractAsyncContextManager[Api]],
) -> None:
    replicas = Replicas()
    async with bent(parts={"embedder": replicas.standby.guard(answered)}) as api:
        refused = await api.post("/v1/search", {"text": "robots"})
        assert error(refused) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 1
        assert (await api.post("/v1/search", {"text": "robots", "mode": "sparse"})).status_code == 200
        [first, *_] = (await api.get("/v1/items")).json()["items"]
        assert (await api.post("/v1/similar", {"id": first["id"]})).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
