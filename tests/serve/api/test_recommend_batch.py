"""Many recommendations in one request: each is answered as alone, none takes the place of a search."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from matinee.errors import DeadlineError, OverloadedError
from serve.graph import messages
from tests.serve.api_client import Api, error

LIKES = [{"likes": ["Metropolis"], "k": 2}, {"text": "a robot in a city", "k": 2}, {"likes": ["metropolis-1927"], "text": "love", "k": 1}]


@pytest.mark.asyncio(loop_scope="session")
async def test_each_is_answered_as_alone(api: Api) -> None:
    alone = [(await api.post("/v1/recommend", one)).json() for one in LIKES]
    batch = (await api.post("/v1/recommend:batch", {"requests": LIKES})).json()
    assert batch["failed"] == 0
    for single, result in zip(alone, batch["results"], strict=True):
        assert [item["id"] for item in result["items"]] == [item["id"] for item in single["items"]]
        assert {name: value for name, value in single.items() if name not in ("items", "request_id")} == {
            name: value for name, value in result.items() if name != "items"
        }


@pytest.mark.asyncio(loop_scope="session")
async def test_one_that_fails_fails_alone(api: Api) -> None:
    batch = (await api.post("/v1/recommend:batch", {"requests": [{"likes": ["No Such Film At All"]}, LIKES[0], {"k": 101}]})).json()
    assert [result.get("error", {}).get("code") for result in batch["results"]] == ["not_found", None, "invalid"]
    assert batch["failed"] == 2


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "body", [{}, {"requests": []}, {"requests": [{}] * 1001}, {"requests": [{"k": 100}] * 101}, {"requests": [{"unknown": 1}]}]
)
async def test_batches_that_will_not_do(api: Api, body: Any) -> None:
    assert error(await api.post("/v1/recommend:batch", body)) == (422, "invalid")


async def test_all_of_it_travels_behind_searches(bent: Callable[..., Any]) -> None:
    seen: list[bool] = []
    async with bent() as api:
        graph = api.service.graph

        async def embedder(message: Any, deadline: float) -> Any:
            seen.append(message.bulk)
            return await graph.embedder(message, deadline)

        async def retriever(message: Any, deadline: float) -> Any:
            if isinstance(message, messages.Rank):
                seen.append(message.bulk)
            return await graph.retriever(message, deadline)

        api.service.graph = type(graph)(embedder, retriever, graph.enhancer, graph.infos)
        await api.post("/v1/recommend:batch", {"requests": [{"text": "war", "k": 1}]})
        assert seen == [True, True]
        await api.post("/v1/recommend", {"text": "peace", "k": 1})
        assert seen == [True, True, False, False]


async def test_a_full_queue_is_waited_for_and_a_late_answer_is_an_error_of_its_own(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        graph, calls = api.service.graph, 0

        async def retriever(message: Any, deadline: float) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OverloadedError("full")
            if calls == 2:
                raise DeadlineError("late")
            return await graph.retriever(message, deadline)

        api.service.graph = type(graph)(graph.embedder, retriever, graph.enhancer, graph.infos)
        batch = (await api.post("/v1/recommend:batch", {"requests": [{"k": 1}, {"k": 2}]})).json()
        assert "items" in batch["results"][0]
        assert batch["results"][1]["error"]["code"] == "deadline"


async def test_only_so_many_bulk_requests_at_once(bent: Callable[..., Any]) -> None:
    go_on = asyncio.Event()
    async with bent(serving={"bulk": {"at_once": 1}}) as api:
        graph, begun = api.service.graph, asyncio.Event()

        async def retriever(message: Any, deadline: float) -> Any:
            begun.set()
            await go_on.wait()
            return await graph.retriever(message, deadline)

        api.service.graph = type(graph)(graph.embedder, retriever, graph.enhancer, graph.infos)
        first = asyncio.create_task(api.post("/v1/recommend:batch", {"requests": [{"k": 1}]}))
        await begun.wait()
        second = await api.post("/v1/recommend:batch", {"requests": [{"k": 1}]})
        assert error(second) == (503, "overloaded")
        assert "serving.bulk.at_once" in second.json()["message"]
        go_on.set()
        assert (await first).json()["failed"] == 0
        assert (await api.post("/v1/recommend:batch", {"requests": [{"k": 1}]})).status_code == 200
