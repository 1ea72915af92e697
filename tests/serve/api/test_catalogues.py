"""Several catalogues in one server: each with its own items, attributes, settings of search and keys, behind the same routes."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from serve.api.auth import new_key
from serve.graph import messages
from tests.serve.api_client import Api, error

Bent = Callable[..., AbstractAsyncContextManager[Api]]

BOOKS = {
    "name": "books",
    "kind": "book",
    "attributes": {"author": {"type": "keyword", "source": "people.author", "many": True, "facet": True}},
    "search": {"mode": "sparse", "max_k": 20},
}
DUNE = {"id": "b1", "title": "Dune", "overview": "A desert planet.", "people": {"author": ["Frank Herbert"]}}
EMMA = {"id": "b2", "title": "Emma", "overview": "A matchmaker in a village.", "people": {"author": ["Jane Austen"]}}


async def with_books(api: Api) -> None:
    created = await api.post("/v1/catalogues", BOOKS)
    assert created.status_code == 201, created.text
    written = await api("PUT", "/v1/catalogues/books/items", json={"items": [DUNE, EMMA]})
    assert written.status_code == 200, written.text


async def test_every_route_answers_for_a_catalogue_by_its_name(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        titles = [item["item"]["title"] for item in (await api.get("/v1/catalogues/books/items")).json()["items"]]
        assert sorted(titles) == ["Dune", "Emma"]
        found = (await api.post("/v1/catalogues/books/search", {"text": "desert planet"})).json()
        assert (found["score_type"], [card["item"]["title"] for card in found["items"]]) == ("bm25", ["Dune"])
        filtered = {"text": "desert village", "filter": {"author": ["Jane Austen"]}}
        found = (await api.post("/v1/catalogues/books/search", filtered)).json()
        assert [card["item"]["title"] for card in found["items"]] == ["Emma"]
        similar = (await api.get("/v1/catalogues/books/items/b1/similar")).json()
        assert [card["item"]["title"] for card in similar["items"]] == ["Emma"]
        liked = (await api.post("/v1/catalogues/books/recommend", {"likes": ["Dune"]})).json()
        assert [card["item"]["title"] for card in liked["items"]] == ["Emma"]
        batch = (await api.post("/v1/catalogues/books/recommend:batch", {"requests": [{"likes": ["b1"]}]})).json()
        assert (batch["failed"], batch["results"][0]["items"][0]["item"]["title"]) == (0, "Emma")
        facets = (await api.get("/v1/catalogues/books/facets")).json()
        assert (facets["count"], sorted(entry["value"] for entry in facets["facets"]["author"])) == (2, ["Frank Herbert", "Jane Austen"])
        patched = await api("PATCH", "/v1/catalogues/books/items/b1", json={"year": 1965})
        assert patched.json()["item"]["year"] == 1965
        info = (await api.get("/v1/catalogues/books/info")).json()
        assert (info["catalogue"], info["search"]["mode"], info["limits"]["k"], info["index"]["items"]) == ("books", "sparse", 20, 2)
        assert list(info["index"]["attributes"]) == ["author"]
        assert error(await api.post("/v1/catalogues/books/search", {"text": "x", "k": 21})) == (422, "invalid")
        deleted = (await api.post("/v1/catalogues/books/items:delete", {"ids": ["b2"]})).json()
        assert deleted["count"] == 1
        default = (await api.get("/v1/info")).json()
        assert (default["catalogue"], default["index"]["items"]) == ("demo", 5)
        assert error(await api.get("/v1/items/b1")) == (404, "not_found")
        assert error(await api.post("/v1/search", {"text": "x", "filter": {"author": ["Jane Austen"]}})) == (422, "invalid")
        own = (await api.get("/v1/catalogues/demo/info")).json()
        assert (own["catalogue"], own["index"]["items"]) == ("demo", 5)


async def test_lines_and_imports_go_into_their_catalogue(bent: Bent) -> None:
    async with bent() as api:
        await api.post("/v1/catalogues", BOOKS)
        lines = {"content": b'{"id": "b1", "title": "Dune"}\nnonsense', "headers": {"content-type": "application/x-ndjson"}}
        uploaded = (await api("POST", "/v1/catalogues/books/items:batch", **lines)).json()
        assert (uploaded["written"], uploaded["rejected"]) == (1, 1)
        lines["content"] = b'{"id": "b2", "title": "Emma"}'
        started = await api("POST", "/v1/catalogues/books/imports", **lines)
        assert started.status_code == 202, started.text
        assert (await api.get("/v1/imports")).json()["imports"] == []
        served = api.client._transport.app.state.served  # type: ignore[attr-defined]
        await served.work()

        async def over() -> bool:
            job = (await api.get(f"/v1/catalogues/books/imports/{started.json()['id']}")).json()
            return bool(job["status"] == "done")

        async with asyncio.timeout(60):
            while not await over():  # noqa: ASYNC110  the job tells nobody
                await asyncio.sleep(0.01)
        await served.stop()
        assert (await api.get("/v1/catalogues/books/info")).json()["index"]["items"] == 2


async def test_catalogues_are_listed_shown_and_deleted(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        [default, books] = (await api.get("/v1/catalogues")).json()["catalogues"]
        assert (default["name"], default["default"], default["items"], default["kind"]) == ("demo", True, 5, None)
        assert (books["name"], books["default"], books["state"], books["items"]) == ("books", False, "ready", 2)
        assert (books["attributes"], books["kind"], books["search"]) == (1, "book", {"mode": "sparse", "max_k": 20})
        assert (await api.get("/v1/catalogues/books")).json().items() >= books.items()
        assert error(await api("DELETE", "/v1/catalogues/demo")) == (409, "conflict")
        assert (await api("DELETE", "/v1/catalogues/books")).json()["deleted"] is True
        for method, path in (("GET", "/v1/catalogues/books"), ("DELETE", "/v1/catalogues/books"), ("GET", "/v1/catalogues/books/info")):
            gone = await api(method, path)
            assert error(gone) == (404, "not_found")
            assert "demo" in gone.json()["message"]
        assert len((await api.get("/v1/catalogues")).json()["catalogues"]) == 1
        await with_books(api)
        assert (await api.get("/v1/catalogues/books")).json()["items"] == 2, "of the one that was deleted nothing is left"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "demo"}, (409, "conflict")),
        ({"name": "none"}, (422, "invalid")),
        ({"name": "Books"}, (422, "invalid")),
        ({"name": "../x"}, (422, "invalid")),
        ({"name": "b" * 64}, (422, "invalid")),
        ({"name": ""}, (422, "invalid")),
        ({"name": "b", "recipe": "cooked"}, (422, "invalid")),
        ({"name": "b", "search": {"max_k": 5000}}, (422, "invalid")),
        ({"name": "b", "search": {"colour": 1}}, (422, "invalid")),
        ({"name": "b", "attributes": {"and": {"type": "keyword", "source": "kind"}}}, (422, "invalid")),
        ({"name": "b", "attributes": {"size": {"type": "float"}}}, (422, "invalid")),
    ],
)
async def test_what_can_not_be_a_catalogue_is_refused(api: Api, body: dict[str, Any], expected: tuple[int, str]) -> None:
    response = await api.post("/v1/catalogues", body)
    assert error(response) == expected
    assert "^" not in response.json()["message"], "a pattern is no explanation"


async def test_one_that_exists_can_not_be_created_again(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        again = await api.post("/v1/catalogues", {"name": "books"})
        assert error(again) == (409, "conflict")
        assert (await api.get("/v1/catalogues/books")).json()["items"] == 2


async def change(api: Api, body: Any, catalogue: str = "books") -> Any:
    return await api("PATCH", f"/v1/catalogues/{catalogue}", json=body)


async def test_a_catalogue_is_changed_field_by_field(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        changed = await change(api, {"title": "Old books", "search": {"mode": "hybrid", "max_k": None}, "kind": None})
        assert changed.status_code == 200, changed.text
        body = changed.json()
        assert (body["title"], body["kind"], body["search"], body["building"]) == ("Old books", None, {"mode": "hybrid"}, False)
        info = (await api.get("/v1/catalogues/books/info")).json()
        assert (info["search"]["mode"], info["limits"]["k"], info["building"]) == ("hybrid", 100, False)
        many = await api.post("/v1/catalogues/books/search", {"text": "planet", "k": 50, "mode": "sparse"})
        assert many.status_code == 200, "ranked by the new settings, also in a catalogue that is open"
        assert (await change(api, {})).json().items() >= {"title": "Old books", "items": 2}.items()
        merged = await api(
            "PATCH", "/v1/catalogues/books", content=b'{"title": null}', headers={"content-type": "application/merge-patch+json"}
        )
        assert merged.json()["title"] is None


async def test_attributes_change_without_a_new_ingest(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        pages = {"type": "integer", "source": "numbers.pages"}
        await api("PATCH", "/v1/catalogues/books/items/b1", json={"numbers": {"pages": 412}})
        assert error(await api.post("/v1/catalogues/books/search", {"text": "x", "filter": {"pages": {"gt": 400}}})) == (422, "invalid")
        assert (await change(api, {"attributes": {"pages": pages, "author": None}})).json()["attributes"] == 1
        found = (await api.post("/v1/catalogues/books/search", {"text": "x", "filter": {"pages": {"gt": 400}}, "mode": "dense"})).json()
        assert [card["item"]["title"] for card in found["items"]] == ["Dune"]
        assert error(await api.post("/v1/catalogues/books/search", {"text": "x", "filter": {"author": ["A"]}})) == (422, "invalid")
        # Of another type: who filters as before learns what there is now, and a rollback would bring the old one back.
        shelf = {"type": "keyword", "source": "numbers.pages"}
        assert (await change(api, {"attributes": {"pages": shelf}})).status_code == 200
        refused = await api.post("/v1/catalogues/books/search", {"text": "x", "filter": {"pages": {"gt": 400}}})
        assert error(refused) == (422, "invalid")
        assert "pages (keyword)" in refused.json()["message"]
        # The default catalogue has attributes of its own to change, and nothing else.
        default = (await change(api, {"attributes": {"pages": pages}}, "demo")).json()
        assert (default["default"], default["attributes"], default["items"]) == (True, 7, 5)
        assert error(await change(api, {"title": "x"}, "demo")) == (409, "conflict")


async def test_what_can_not_be_changed_is_refused_and_changes_nothing(bent: Bent) -> None:
    bodies: list[dict[str, Any]] = [
        {"name": "b"},
        {"title": ""},
        {"recipe": "cooked"},
        {"search": {"max_k": 5000}},
        {"search": []},
        {"attributes": {"or": None}},
        {"attributes": {"size": None}},
        {"attributes": {"size": {"type": "float"}}},
        {"attributes": {"Size": {"type": "float", "source": "numbers.size"}}},
    ]
    async with bent() as api:
        await with_books(api)
        before = (await api.get("/v1/catalogues/books")).json()
        for body in bodies:
            refused = await change(api, body)
            assert error(refused) == (422, "invalid"), body
            assert "^" not in refused.json()["message"]
        assert (await api.get("/v1/catalogues/books")).json().items() >= {key: before[key] for key in before if key != "request_id"}.items()
        assert error(await change(api, {"title": "x"}, "nope")) == (404, "not_found")


async def test_a_server_without_an_index_gets_its_first_one_over_the_api(bent: Bent) -> None:
    async with bent(films=0) as api:
        assert error(await api.put(DUNE)) == (503, "index_absent")
        assert (await api.get("/v1/catalogues")).json()["catalogues"][0]["state"] == "empty"
        made = await api.post("/v1/index", {"attributes": {"author": BOOKS["attributes"]["author"]}})  # type: ignore[index]
        assert made.status_code == 201, made.text
        assert (made.json()["state"], made.json()["attributes"]) == ("ready", 1)
        assert (await api.put(DUNE)).status_code == 200
        found = (await api.post("/v1/search", {"text": "planet", "filter": {"author": ["Frank Herbert"]}})).json()
        assert [card["item"]["title"] for card in found["items"]] == ["Dune"]
        assert error(await api.post("/v1/index", {})) == (409, "conflict")
        assert error(await api.post("/v1/index", {"attributes": {"and": DUNE}})) == (422, "invalid")


async def test_keys_are_for_their_catalogues(bent: Bent) -> None:
    secrets, entries = {}, []
    for name, scopes in {
        "plain": ("read",),
        "books": ("books:read", "books:write"),
        "all": ("*:read",),
        "chief": ("books:admin",),
        "admin": ("admin",),
    }.items():
        secrets[name], entry = new_key(name, scopes)
        entries.append(entry.model_dump())

    async with bent(serving={"keys": entries}) as api:

        async def status(key: str, method: str, path: str, **more: Any) -> int:
            return (await api(method, path, headers={"authorization": f"Bearer {secrets[key]}"}, **more)).status_code

        assert await status("admin", "POST", "/v1/catalogues", json=BOOKS) == 201
        put = {"json": {"items": [DUNE]}}
        assert await status("books", "PUT", "/v1/catalogues/books/items", **put) == 200
        reads = {key: [await status(key, "GET", path) for path in ("/v1/facets", "/v1/catalogues/books/facets")] for key in secrets}
        assert reads == {"plain": [200, 403], "books": [403, 200], "all": [200, 200], "chief": [403, 200], "admin": [200, 200]}
        writes = {key: await status(key, "PUT", "/v1/catalogues/books/items", **put) for key in secrets}
        assert writes == {"plain": 403, "books": 200, "all": 403, "chief": 200, "admin": 200}
        assert [await status(key, "DELETE", "/v1/catalogues/books") for key in ("plain", "books", "all", "chief")] == [403] * 4
        assert [await status(key, "POST", "/v1/catalogues", json={"name": "x"}) for key in ("plain", "chief")] == [403] * 2
        patches = {key: await status(key, "PATCH", "/v1/catalogues/books", json={"title": "B"}) for key in secrets}
        assert patches == {"plain": 403, "books": 403, "all": 403, "chief": 200, "admin": 200}
        debug = {"json": {"text": "x", "debug": True}}
        assert [await status(key, "POST", "/v1/catalogues/books/search", **debug) for key in ("books", "chief")] == [403, 200]

        async def names(key: str) -> list[str]:
            answer = await api.get("/v1/catalogues", headers={"authorization": f"Bearer {secrets[key]}"})
            return [one["name"] for one in answer.json()["catalogues"]]

        assert {key: await names(key) for key in secrets} == {
            "plain": ["demo"],
            "books": ["books"],
            "all": ["demo", "books"],
            "chief": ["books"],
            "admin": ["demo", "books"],
        }
        missing = await api.get("/v1/catalogues/nope/facets", headers={"authorization": f"Bearer {secrets['all']}"})
        assert error(missing) == (404, "not_found")
        assert "books, demo" in missing.json()["message"]
        assert await status("books", "GET", "/v1/catalogues/nope/facets") == 403, "who may not ask does not learn what there is"


async def test_a_flood_of_one_catalogue_leaves_the_others_their_places(bent: Bent) -> None:
    serving = {"deployment": {"max_ongoing_requests": 8, "target_ongoing_requests": 4}, "limits": {"share": 1}}
    async with bent(serving=serving) as api:
        real, go_on = api.service.graph.retriever, asyncio.Event()

        async def slow(message: Any, deadline: float) -> Any:
            if isinstance(message, messages.In) and isinstance(message.message, messages.Rank):
                await go_on.wait()
            return await real(message, deadline)

        api.service.graph = replace(api.service.graph, retriever=slow)
        await with_books(api)
        search = {"text": "planet", "mode": "sparse"}
        flood = [asyncio.create_task(api.post("/v1/catalogues/books/search", search)) for _ in range(20)]
        refused = [await one for one in asyncio.as_completed(flood[8:])]
        assert {error(one) for one in refused} == {(503, "overloaded")}
        for _ in range(3):
            assert (await api.post("/v1/search", search)).status_code == 200
        assert error(await api.post("/v1/catalogues/books/search", search)) == (503, "overloaded")
        go_on.set()
        statuses = [(await one).status_code for one in flood]
        assert 4 <= statuses.count(200) < 8
        assert (await api.post("/v1/catalogues/books/search", search)).status_code == 200


async def test_one_that_nobody_uses_is_closed_and_opened_again(bent: Bent) -> None:
    async with bent(index={"catalogues": {"open": 1}}) as api:
        await with_books(api)
        assert (await api.post("/v1/catalogues", {"name": "games"})).status_code == 201
        await api.get("/v1/catalogues/games/info")

        async def is_open() -> dict[str, tuple[bool, int]]:
            return {one["name"]: (one["open"], one["items"]) for one in (await api.get("/v1/catalogues")).json()["catalogues"]}

        async with asyncio.timeout(60):
            while await is_open() != {"demo": (True, 5), "books": (False, 2), "games": (True, 0)}:  # noqa: ASYNC110  closing tells nobody
                await asyncio.sleep(0.01)
        assert (await api.get("/v1/catalogues/books/info")).json()["index"]["items"] == 2


async def test_requests_are_counted_by_catalogue_and_never_by_an_invented_name(bent: Bent) -> None:
    async with bent() as api:
        await with_books(api)
        await api.get("/v1/catalogues/books/facets")
        await api.get("/v1/catalogues/nope/facets")
        await api.get("/v1/facets")
        await api.get("/livez")
        values = api.service.metrics.sink.values
        counted = {tuple(dict(tags)[name] for name in ("catalogue", "endpoint")) for (name, tags) in values if name == "matinee_requests"}
        assert {("books", "facets"), ("demo", "facets"), ("none", "none")} <= counted
        assert {catalogue for catalogue, _ in counted} == {"books", "demo", "none"}
        labels = {dict(tags)["catalogue"] for (name, tags) in values if name == "matinee_index_up"}
        assert labels == {"books", "demo"}


async def test_the_document_has_each_route_twice(api: Api) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    routes = {path.removeprefix("/v1/") for path in paths if path.startswith("/v1/") and not path.startswith("/v1/catalogues")}
    below = {path.removeprefix("/v1/catalogues/{catalogue}/") for path in paths if path.startswith("/v1/catalogues/{catalogue}/")}
    assert routes == below
    search = paths["/v1/catalogues/{catalogue}/search"]["post"]
    assert search["parameters"][0]["name"] == "catalogue"
    assert search["requestBody"] == paths["/v1/search"]["post"]["requestBody"]


async def test_a_path_below_catalogues_that_is_no_route(api: Api) -> None:
    for path in (
        "/v1/catalogues/",
        "/v1/catalogues/demo/",
        "/v1/catalogues/demo/catalogues",
        "/v1/catalogues/demo/nothing",
        "/v1/catalogues/demo//",
    ):
        assert error(await api.get(path)) == (404, "not_found"), path
