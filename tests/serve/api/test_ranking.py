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


A_FILM = "Metropolis"


COLD = {"kind": "film", "title": "A Film of Nobody", "year": 2031, "genres": ["Horror"], "overview": "A vampire sleeps in a lighthouse."}


async def film(api: Api, title: str = A_FILM) -> dict:
    return (await api.get("/v1/items", params={"q": title})).json()["items"][0]


async def test_recommend_by_a_title_gives_scores_and_reasons(api: Api) -> None:
    body = (await api.post("/v1/recommend", {"likes": [A_FILM], "k": 3})).json()
    assert len(body["items"]) == 3
    assert body["score_type"] == "cosine"
    assert body["likes"][0]["title"] == A_FILM
    assert body["degraded"] == []
    scores = [item["score"] for item in body["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in body["items"]:
        assert item["because"] == body["likes"][0]["id"] != item["id"]
        assert A_FILM in item["reason"]
        assert item["item"]["title"] in item["reason"]


async def test_recommend_takes_ids_titles_cold_items_text_and_dislikes_together(api: Api) -> None:
    known = await film(api)
    request = {
        "likes": [known["id"], {"id": "nosferatu-1922"}, {"title": "Vampyr"}, {"item": COLD}],
        "dislikes": [{"item": COLD | {"title": "Another"}}, "Frankenstein"],
        "text": "a city of machines",
        "k": 5,
        "exclude": ["frankenstein-1931"],
        "diversity": 0.4,
        "filter": {"kind": ["film"], "year": {"gte": 1900}},
    }
    response = await api.post("/v1/recommend", request)
    body = response.json()
    assert response.status_code == 200, body
    assert [like["title"] for like in body["likes"]] == [A_FILM, "Nosferatu", "Vampyr", COLD["title"]]
    titles = {item["item"]["title"] for item in body["items"]}
    assert len(titles) == 5
    assert not titles & {A_FILM, "Nosferatu", "Vampyr", "Frankenstein"}


@pytest.mark.parametrize(
    ("request_", "score_type"),
    [
        ({}, "popularity"),
        ({"text": "robots"}, "cosine"),
        ({"dislikes": ["Frankenstein"]}, "best_score"),
        ({"likes": ["Vampyr", "Frankenstein"]}, "cosine"),
        ({"likes": ["Vampyr", "Frankenstein"], "strategy": "best"}, "best_score"),
    ],
)
async def test_each_way_to_ask_names_its_score_type(api: Api, request_: dict, score_type: str) -> None:
    body = (await api.post("/v1/recommend", request_ | {"k": 4})).json()
    assert (body["score_type"], len(body["items"])) == (score_type, 4)


async def test_without_explain_there_are_no_reasons(api: Api) -> None:
    body = (await api.post("/v1/recommend", {"likes": [A_FILM], "explain": False})).json()
    assert all("reason" not in item for item in body["items"])


async def test_similar_by_either_id(api: Api) -> None:
    known = await film(api)
    by_uid = (await api.get(f"/v1/items/{known['id']}/similar", params={"k": 4})).json()
    by_own = (await api.get(f"/v1/items/{known['item']['id']}/similar", params={"k": 4})).json()
    assert by_uid["items"] == by_own["items"]
    assert len(by_uid["items"]) == 4
    assert known["id"] not in {item["id"] for item in by_uid["items"]}


@pytest.mark.parametrize(("mode", "score_type"), [("dense", "cosine"), ("sparse", "bm25"), ("hybrid", "linear"), (None, "linear")])
async def test_search_modes(api: Api, mode: str | None, score_type: str) -> None:
    request = {"text": "vampire", "k": 3} | ({"mode": mode} if mode else {})
    body = (await api.post("/v1/search", request)).json()
    assert body["score_type"] == score_type
    assert body["items"][0]["item"]["title"] in {"Dracula", "Nosferatu", "Vampyr"}


async def test_search_filters_and_exact(api: Api) -> None:
    request = {"text": "love", "k": 20, "exact": True, "filter": {"genres_none": ["Drama"], "year": {"lte": 1940}}}
    items = (await api.post("/v1/search", request)).json()["items"]
    assert items
    for item in items:
        assert "Drama" not in item["item"].get("genres", [])
        assert item["item"]["year"] <= 1940


async def test_no_item_passes_the_filter(api: Api) -> None:
    for path, request in (("/v1/search", {"text": "x"}), ("/v1/recommend", {}), ("/v1/recommend", {"likes": [A_FILM]})):
        body = (await api.post(path, request | {"filter": {"language": ["xx"]}})).json()
        assert body["items"] == []


async def test_expand_searches_with_what_the_enhancer_writes(api: Api) -> None:
    response = await api.post("/v1/search", {"text": "a vampire at sea", "expand": True, "k": 2})
    assert response.json()["degraded"] == []
    assert "enhance;dur=" in response.headers["server-timing"]
