"""What a gateway reports of its graph: a part that is away or hangs hides nothing of the others."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import DeadlineError, IndexUnavailableError
from serve.errors import UnavailableError
from serve.graph import health
from tests.serve.api_client import Api, error

Bent = Callable[..., AbstractAsyncContextManager[Api]]


async def test_a_part_that_does_not_answer_hides_nothing_of_the_others(bent: Bent) -> None:
    async def well() -> dict[str, Any]:
        return {"model": "m"}

    quick = {"serving": {"deadline_s": 2}, "enhancer": {"deadline_s": 1}}
    async with bent(films=3, parts={"infos": {"embedder": asyncio.Event().wait, "enhancer": well}}, **quick) as api:
        info = (await api.get("/v1/info")).json()
        assert info["degraded"] == ["embedder: no answer within the deadline"]
        assert info["enhancer"] == {"model": "m"}


async def test_a_part_that_is_gone_is_a_503_and_info_still_answers(bent: Bent) -> None:
    async def gone(*_: Any) -> Any:
        raise UnavailableError("embedder failed or was restarted")

    async with bent(parts={"embedder": gone, "infos": {"embedder": gone}}) as api:
        assert error(await api.post("/v1/search", {"text": "x"})) == (503, "unavailable")
        info = await api.get("/v1/info")
        assert (info.status_code, info.json()["degraded"]) == (200, ["embedder: embedder failed or was restarted"])
    async with bent(parts={"retriever": gone}) as api:
        assert (await api.get("/readyz")).json()["reasons"] == ["unavailable: embedder failed or was restarted"]
        assert (await api.get("/livez")).status_code == 200


async def test_info_tells_of_an_index_that_is_out_of_reach(bent: Bent) -> None:
    async def away(*_: Any) -> Any:
        raise IndexUnavailableError("no answer from http://qdrant:6333")

    async with bent(parts={"retriever": away}) as api:
        info = await api.get("/v1/info")
        assert (info.status_code, info.json()["index"]) == (200, None)
        assert info.json()["index_trouble"] == "no answer from http://qdrant:6333"
        assert info.json()["degraded"] == ["index: no answer from http://qdrant:6333"]
        assert info.json()["embedder"]["model"]
        assert error(await api.post("/v1/search", {"text": "x"})) == (503, "index_unavailable")


async def test_an_index_that_hangs_leaves_the_other_parts_their_time(bent: Bent) -> None:
    async def hangs(_: Any, deadline: float) -> Any:
        await asyncio.sleep(deadline - time.monotonic())
        raise DeadlineError("retriever: no answer within the deadline")

    async def well() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"model": "minilm", "trouble": None}

    quick = {"serving": {"deadline_s": 2}, "enhancer": {"deadline_s": 1}}
    async with bent(parts={"retriever": hangs, "infos": {"embedder": well}}, **quick) as api:
        info = (await api.get("/v1/info")).json()
        assert (info["embedder"]["model"], info["degraded"]) == ("minilm", ["index: retriever: no answer within the deadline"])


async def test_a_damaged_mark_of_the_current_version_is_told_and_the_open_one_goes_on(bent: Bent, tmp_path: Path) -> None:
    async with bent() as api:
        [mark] = tmp_path.rglob("CURRENT")  # noqa: ASYNC240  a test may block
        mark.write_text("{", encoding="utf-8")
        info = (await api.get("/v1/info")).json()
        assert (info["index"]["items"], info["index"]["previous"]) == (5, None)
        assert [trouble for trouble in info["degraded"] if "CURRENT is damaged" in trouble], info["degraded"]
        assert (await api.post("/v1/search", {"text": "x"})).status_code == 200


async def test_however_many_probes_come_the_retriever_sees_one_a_second(bent: Bent, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bent(films=3) as api:
        retriever, calls = api.service.graph.retriever, []

        async def counted(message: Any, deadline: float) -> Any:
            calls.append(message)
            return await retriever(message, deadline)

        api.service.graph = replace(api.service.graph, retriever=counted)
        answers = await asyncio.gather(*(api.get("/readyz") for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(calls) == 1
        monkeypatch.setattr(health, "CHECKED_S", 0.0)
        await api.get("/readyz")
        assert len(calls) == 2
