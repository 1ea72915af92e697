"""Titles as examples: how long and how many they may be, and that looking them up keeps nobody waiting."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from matinee.recommend import titles
from tests.serve.api_client import Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

INVALID = (422, "invalid")
# What took seconds, minutes, for ever: the year was searched in the whole title.
HARD = ["a" + "," * 3_998 + "x", "a" * 2_000 + "," * 1_999 + "x", "a" + " (" * 1_999 + "x"]


async def unreached(unit: Any, deadline: float) -> Any:
    raise AssertionError(f"a request that is refused asks no part: {type(unit).__name__}")


@pytest.mark.parametrize("side", ["likes", "dislikes"])
@pytest.mark.parametrize("title", HARD, ids=["commas", "letters and commas", "brackets"])
async def test_a_title_of_4000_characters_is_refused_before_any_work(bent: Callable[..., Any], title: str, side: str) -> None:
    async with bent(parts={"retriever": unreached, "embedder": unreached}) as api:
        for example, where in ((title, f"{side}.0.text"), ({"title": title}, f"{side}.0.object.title")):
            response = await api.post("/v1/recommend", {side: [example]})
            assert error(response) == INVALID
            assert response.json()["message"].startswith(f"{where}: 4000 characters, at most 500 are allowed")


@pytest.mark.parametrize("title", HARD, ids=["commas", "letters and commas", "brackets"])
async def test_the_longest_titles_are_looked_up(api: Api, title: str) -> None:
    assert error(await api.post("/v1/recommend", {"likes": [title[-500:]]})) == (404, "not_found")
    assert (await api.get("/v1/items", params={"q": title[-500:]})).json()["items"] == []
    assert error(await api.get("/v1/items", params={"q": title[-501:]})) == INVALID


async def test_a_hundred_titles_are_refused_with_what_to_do(bent: Callable[..., Any]) -> None:
    async with bent(parts={"retriever": unreached, "embedder": unreached}) as api:
        ordinary = [f"ordinary words {n}" for n in range(100)]
        mixed = [{"title": title} for title in ordinary[50:]]
        response = await api.post("/v1/recommend", {"likes": ordinary[:50], "dislikes": mixed, "text": "never embedded"})
        assert error(response) == INVALID
        assert response.json()["message"] == (
            "likes and dislikes: 100 titles, at most 20 are looked up in one request: send ids instead of titles "
            "(GET /v1/items?q=TITLE finds an id)"
        )


async def test_ids_and_repeated_titles_do_not_count(api: Api, local_graph: Any) -> None:
    films = local_graph.demo_films()[:40]
    ids = [film.uid("demo") for film in films]
    body = {"likes": [*ids, *(film.title for film in films[:10])], "dislikes": [{"title": film.title} for film in films[:20]]}
    assert len(body["likes"]) == 50
    response = await api.post("/v1/recommend", body)
    assert response.status_code == 200, response.text
    [*likes] = response.json()["likes"]
    assert [like["id"] for like in likes] == [*ids, *ids[:10]]


async def test_while_titles_are_compared_others_are_answered(api: Api, local_graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By order, not by time: the comparison goes on only after the others have their answers."""
    compared, answered = asyncio.Event(), threading.Event()
    loop, compare = asyncio.get_running_loop(), titles._similarity

    def held(*texts: Any) -> float:
        loop.call_soon_threadsafe(compared.set)
        # On the event loop this would wait in vain.
        assert answered.wait(60)
        return compare(*texts)

    monkeypatch.setattr(titles, "_similarity", held)
    body = {"likes": [film.title for film in local_graph.demo_films()[:20]], "k": 2}
    asked = asyncio.create_task(api.post("/v1/recommend", body))
    try:
        async with asyncio.timeout(50):
            await compared.wait()
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.post("/v1/search", {"text": "a train", "k": 2})).status_code == 200
    finally:
        answered.set()
        response = await asked
    # It may have been held for longer than titles may take.
    assert response.status_code in (200, 504), response.text


async def test_twenty_titles_are_answered(api: Api, local_graph: Any) -> None:
    films = local_graph.demo_films()[:20]
    response = await api.post("/v1/recommend", {"likes": [f"{film.title} ({film.year})" for film in films], "k": 2})
    assert [like["title"] for like in response.json()["likes"]] == [film.title for film in films]


async def test_info_names_the_limits(api: Api) -> None:
    limits = (await api.get("/v1/info")).json()["limits"]
    assert (limits["titles"], limits["title_chars"]) == (20, 500)
