"""Writes through the API: what is put is found, what is deleted is gone, and pages, revisions and tombstones add up."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from serve.api import schemas
from tests.serve.api_client import Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

BAD = (422, "invalid")
FILM = {"id": "own-1", "kind": "film", "title": "The Glass Beekeeper", "year": 2030, "overview": "A beekeeper builds a hive out of glass."}


@pytest_asyncio.fixture(loop_scope="session")
async def put(api: Api) -> AsyncIterator[Any]:
    """Puts items, and deletes them after the test."""
    written: list[str] = []

    async def do(*items: dict[str, Any]) -> list[dict[str, Any]]:
        response = await api.put(*items)
        assert response.status_code == 200, response.text
        written.extend(item["id"] for item in response.json()["items"])
        return list(response.json()["items"])

    yield do
    for id in written:
        await api("DELETE", f"/v1/items/{id}")


async def test_what_is_put_is_found_everywhere(api: Api, put: Any) -> None:
    [state] = await put(FILM)
    assert (state["searchable"], state["enriched"]) == (True, False)
    stored = (await api.get("/v1/items/own-1")).json()
    assert stored == {"id": state["id"], "item": FILM, "origin": "api", "revision": state["revision"], "enriched": False}
    for mode in ("dense", "sparse", "hybrid"):
        found = (await api.post("/v1/search", {"text": "beekeeper with a glass hive", "mode": mode, "k": 1})).json()
        assert found["items"][0]["item"] == FILM
    assert (await api.get("/v1/items", params={"q": "glass bee"})).json()["items"][0]["id"] == state["id"]
    liked = (await api.post("/v1/recommend", {"likes": ["The Glas Beekeper"], "k": 1})).json()
    assert liked["likes"] == [{"id": state["id"], "title": FILM["title"], "year": 2030}]
    assert (await api.get("/v1/items/own-1/similar")).status_code == 200


async def test_a_second_put_replaces(api: Api, put: Any) -> None:
    [first] = await put(FILM)
    [second] = await put(FILM | {"title": "The Iron Beekeeper"})
    assert second["id"] == first["id"]
    assert second["revision"] > first["revision"]
    assert (await api.get("/v1/items/own-1")).json()["item"]["title"] == "The Iron Beekeeper"
    assert (await api.get("/v1/items", params={"q": "glass bee"})).json()["items"] == []


async def test_a_deleted_item_is_gone_and_leaves_a_tombstone(api: Api, put: Any) -> None:
    [state] = await put(FILM)
    gone = await api("DELETE", "/v1/items/own-1")
    assert gone.json() == {"id": state["id"], "deleted": True, "request_id": gone.headers["x-request-id"]}
    for method, path in (("GET", "/v1/items/own-1"), ("GET", "/v1/items/own-1/similar"), ("DELETE", "/v1/items/own-1")):
        assert error(await api(method, path)) == (404, "not_found")
    assert error(await api.post("/v1/recommend", {"likes": [state["id"]]})) == (404, "not_found")
    assert error(await api.post("/v1/recommend", {"likes": [FILM["title"]]})) == (404, "not_found")
    assert error(await api.post("/v1/describe", {"id": "own-1"})) == (404, "not_found")
    found = (await api.post("/v1/search", {"text": FILM["overview"], "k": 100})).json()["items"]
    assert state["id"] not in {item["id"] for item in found}
    [tombstone] = await everything(api, since=state["revision"], deleted=True)
    assert (tombstone["id"], tombstone["deleted"], tombstone["origin"]) == (state["id"], True, "api")
    assert await everything(api, since=state["revision"]) == []


async def test_a_deleted_item_can_come_back(api: Api, put: Any) -> None:
    await put(FILM)
    await api("DELETE", "/v1/items/own-1")
    await put(FILM)
    assert (await api.get("/v1/items/own-1")).status_code == 200


async def everything(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await api.get("/v1/items", params={"limit": 7} | params | ({"cursor": cursor} if cursor else {}))).json()
        assert len(page["items"]) <= 7
        found += page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return found


async def test_pages_hold_every_item_once(api: Api, put: Any) -> None:
    await put(FILM)
    found = await everything(api)
    assert len({item["id"] for item in found}) == len(found) == (await api.get("/v1/facets")).json()["count"]
    from_api = await everything(api, origin="api")
    assert [item["item"]["id"] for item in from_api] == ["own-1"]
    assert len(await everything(api, origin="file")) == len(found) - 1


async def test_since_gives_what_was_written_after(api: Api, put: Any) -> None:
    [first] = await put(FILM)
    [second] = await put(FILM | {"id": "own-2", "title": "The Paper Lighthouse"})
    assert [item["id"] for item in await everything(api, since=first["revision"])] == [second["id"]]
    assert {item["id"] for item in await everything(api, since=first["revision"] - 1)} == {first["id"], second["id"]}


async def test_a_hundred_items_and_no_more(api: Api, put: Any) -> None:
    items = [{"id": f"many-{n}", "title": f"Number {n}"} for n in range(101)]
    assert error(await api.put(*items)) == BAD
    assert len(await put(*items[:100])) == 100
    assert error(await api.put()) == BAD


async def test_the_same_item_twice_in_one_put(api: Api) -> None:
    for twin in (FILM | {"title": "Another Title"}, FILM):
        response = await api.put(FILM, twin)
        assert error(response) == BAD
        assert "twice" in response.json()["message"]
    unnamed = {key: value for key, value in FILM.items() if key != "id"}
    assert error(await api.put(unnamed, unnamed | {"overview": "Other words."})) == BAD
    assert error(await api.get("/v1/items/own-1")) == (404, "not_found")


async def test_one_bad_item_and_none_is_written(api: Api) -> None:
    response = await api.put(FILM, {"title": "x", "year": "soon"})
    assert error(response) == BAD
    assert response.json()["message"].startswith("items.1.year")
    assert error(await api.get("/v1/items/own-1")) == (404, "not_found")


async def test_items_at_the_edges(api: Api, put: Any) -> None:
    edges = [
        {"title": "🎬" * 250},
        {"title": "T" * 500, "overview": "日本" * 10_000},
        {"title": "x", "people": {f"role_{n}": ["A" * 200] * 64 for n in range(2)}, "genres": ["g" * 200] * 64},
        {"title": "y", "year": -5000, "numbers": {"votes": -1e15, "rating": 0.1}, "extra": {"a": "b", "c": ["d"]}},
        {"title": "!!!"},
        {"id": "a/b?c#d", "title": "z"},
    ]
    states = await put(*edges)
    for state, item in zip(states, edges, strict=True):
        assert (await api.get(f"/v1/items/{state['id']}")).json()["item"] == {"kind": "item", **item}
        assert (await api.get(f"/v1/items/{state['id']}/similar", params={"k": 1})).status_code == 200


async def test_an_ambiguous_title_answers_with_its_candidates(api: Api, put: Any) -> None:
    await put(*({"id": f"twin-{year}", "kind": "film", "title": "The Twin Sundial", "year": year} for year in (1991, 2021)))
    response = await api.post("/v1/recommend", {"likes": ["the twin sundial"]})
    assert error(response) == (409, "ambiguous_title")
    assert {candidate["year"] for candidate in response.json()["candidates"]} == {1991, 2021}
    assert all(set(candidate) == {"id", "title", "year", "kind"} for candidate in response.json()["candidates"])
    chosen = (await api.post("/v1/recommend", {"likes": ["The Twin Sundial (2021)"]})).json()
    assert chosen["likes"][0]["year"] == 2021


UUID_ID = "0b3f8a52-9c1d-4e7a-8f60-1d2c3b4a5e6f"
ODD_IDS = ("/works/OL45804W", "a.b/../c", "50% off", "two words", "किताब/१", "?x=1&y#z", UUID_ID, UUID_ID.replace("-", ""), "..")


@pytest.mark.parametrize("id", ODD_IDS)
async def test_every_id_of_a_catalogue_can_be_addressed(api: Api, put: Any, id: str) -> None:
    [state] = await put(FILM | {"id": id})
    for one in (id, state["id"]):
        assert (await api.get("/v1/item", params={"id": one})).json()["item"]["id"] == id
        similar = (await api.post("/v1/similar", {"id": one, "k": 2})).json()
        assert (len(similar["items"]), similar["likes"][0]["id"]) == (2, state["id"])
        for like in (one, {"id": one}):
            liked = (await api.post("/v1/recommend", {"likes": [like], "k": 1})).json()
            assert liked["likes"][0]["id"] == state["id"]
        assert (await api.post("/v1/describe", {"id": one})).status_code == 200
        left_out = (await api.post("/v1/recommend", {"text": FILM["overview"], "k": 100, "exclude": [one]})).json()
        assert state["id"] not in {item["id"] for item in left_out["items"]}
        assert "exclude_unknown" not in left_out
    assert (await api("DELETE", "/v1/item", params={"id": id})).json()["id"] == state["id"]
    assert error(await api.get("/v1/item", params={"id": id})) == (404, "not_found")
    assert error(await api.post("/v1/similar", {"id": id})) == (404, "not_found")
    assert error(await api("DELETE", "/v1/item", params={"id": id})) == (404, "not_found")


@pytest.mark.parametrize(
    "id", ["50% off", "100%25", "two words", "किताब", "?x=1&y#z", "a+b", "a;b", "~x", "ñ\u0303", UUID_ID, "{id}", 'O\'Brien "x"']
)
async def test_the_path_takes_every_id_without_a_slash(api: Api, put: Any, id: str) -> None:
    [state] = await put(FILM | {"id": id})
    path = f"/v1/items/{quote(id, safe='')}"
    assert (await api.get(path)).json()["item"]["id"] == id
    assert (await api.get(f"{path}/similar", params={"k": 1})).json()["likes"][0]["id"] == state["id"]
    assert (await api("DELETE", path)).json()["id"] == state["id"]
    assert error(await api.get(path)) == (404, "not_found")


NO_ID = "ffffffff-9c1d-4e7a-8f60-1d2c3b4a5e6f"


async def test_exclude_says_what_excluded_nothing(api: Api, put: Any) -> None:
    [state] = await put(FILM)
    asked = {"k": 3, "exclude": ["own-1", FILM["title"], "nobody", NO_ID]}
    answer = (await api.post("/v1/recommend", asked)).json()
    assert answer["exclude_unknown"] == sorted([FILM["title"], "nobody", NO_ID])
    assert state["id"] not in {item["id"] for item in answer["items"]}
    # A deleted item is as unknown here as it is to GET, by either of its ids.
    await api("DELETE", "/v1/item", params={"id": "own-1"})
    for gone in ("own-1", state["id"]):
        assert (await api.post("/v1/recommend", {"k": 3, "exclude": [gone]})).json()["exclude_unknown"] == [gone]


async def test_a_text_that_is_one_items_id_and_anothers_title_is_asked_about(api: Api, put: Any) -> None:
    named, numbered = FILM | {"id": "x-1", "title": "1917"}, FILM | {"id": "1917", "title": "The Iron Beekeeper"}
    states = await put(named, numbered)
    response = await api.post("/v1/recommend", {"likes": ["1917"]})
    assert error(response) == (409, "ambiguous_title")
    assert {one["id"] for one in response.json()["candidates"]} == {state["id"] for state in states}
    for like, title in (({"id": "1917"}, "The Iron Beekeeper"), ({"title": "1917"}, "1917")):
        assert (await api.post("/v1/recommend", {"likes": [like], "k": 1})).json()["likes"][0]["title"] == title


async def patch(api: Api, id: str, body: Any, **headers: str) -> Any:
    return await api("PATCH", f"/v1/items/{id}", json=body, headers=headers)


async def test_a_patch_changes_what_it_names(api: Api, put: Any) -> None:
    [state] = await put(FILM | {"numbers": {"rating": 7.0, "votes": 10}, "genres": ["Drama"], "language": "en"})
    response = await patch(
        api, "own-1", {"numbers": {"rating": 8.5, "votes": None}, "genres": ["Horror"], "language": None, "extra": {"colour": "blue"}}
    )
    changed = response.json()
    assert changed["item"] == FILM | {"numbers": {"rating": 8.5}, "genres": ["Horror"], "extra": {"colour": "blue"}}
    assert (changed["id"], changed["origin"]) == (state["id"], "api")
    assert changed["revision"] > state["revision"]
    assert (await api.get("/v1/items/own-1")).json() == changed
    found = await api.post(
        "/v1/search", {"text": "glass beehive", "k": 1, "filter": {"genres": ["Horror"], "rating": {"gte": 8}, "year": {"gte": 2030}}}
    )
    assert found.json()["items"][0]["item"] == changed["item"]
    by_query = await api(
        "PATCH", "/v1/item", params={"id": "own-1"}, content=b'{"year": 2031}', headers={"content-type": "application/merge-patch+json"}
    )
    assert by_query.json()["item"]["year"] == 2031


async def test_a_patch_that_changes_nothing_writes_nothing(api: Api, put: Any) -> None:
    [state] = await put(FILM)
    for same in ({}, {"year": 2030}, {"language": None}, {"id": "own-1"}, {"numbers": {"votes": None}}):
        assert (await patch(api, "own-1", same)).json()["revision"] == state["revision"]


async def test_another_title_is_found_by_its_meaning_and_its_words(api: Api, put: Any) -> None:
    await put(FILM)
    await patch(api, "own-1", {"title": "The Copper Lighthouse", "overview": "A keeper rows home through the fog."})
    for mode in ("dense", "sparse"):
        found = (await api.post("/v1/search", {"text": "a lighthouse keeper rows through fog", "mode": mode, "k": 1})).json()
        assert found["items"][0]["item"]["title"] == "The Copper Lighthouse"
    assert (await api.get("/v1/items", params={"q": "glass bee"})).json()["items"] == []


async def test_an_item_keeps_its_id_under_a_patch(api: Api, put: Any) -> None:
    [state] = await put({"kind": "film", "title": "Unnamed One", "year": 2001})
    renamed = (await patch(api, state["id"], {"title": "Named One", "year": 2002})).json()
    assert renamed["id"] == state["id"]
    assert renamed["item"]["identity"] == ["Unnamed One", 2001]
    assert "identity" not in (await patch(api, state["id"], {"title": "Unnamed One", "year": 2001})).json()["item"]
    for other in ({"kind": "book"}, {"id": "mine"}, {"identity": ["x", 1]}):
        response = await patch(api, state["id"], other)
        assert error(response) == BAD
        assert response.json()["message"].startswith("id: ")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"title": None}, "title"),
        ({"year": "soon"}, "year"),
        ({"votes": 3}, "votes"),
        ({"numbers": {"rating": {"a": 1}}}, "numbers.rating"),
        ({"numbers": [1]}, "numbers"),
        ({"people": {"Bad Key": ["x"]}}, "people"),
        ({"extra": {"a": "x\x00"}}, "extra"),
        ([1], ""),
        ("x", ""),
        (None, ""),
    ],
)
async def test_patches_that_will_not_do(api: Api, put: Any, body: Any, where: str) -> None:
    [state] = await put(FILM)
    response = await patch(api, "own-1", body)
    assert error(response) == BAD
    assert response.json()["message"].startswith(where)
    assert (await api.get("/v1/items/own-1")).json()["revision"] == state["revision"]


async def test_a_patch_of_no_item(api: Api, put: Any) -> None:
    await put(FILM)
    await api("DELETE", "/v1/items/own-1")
    assert error(await patch(api, "own-1", {"year": 2000})) == (404, "not_found")
    assert error(await patch(api, "never", {"year": 2000})) == (404, "not_found")


# many at once


async def test_items_are_deleted_together_or_only_looked_up(api: Api, put: Any) -> None:
    states = await put(*({"id": f"own/{n}", "title": f"Number {n}"} for n in range(3)))
    body = {"ids": ["own/0", states[1]["id"], "own/1", "never"]}
    rehearsed = (await api.post("/v1/items:delete", body | {"dry_run": True})).json()
    assert rehearsed["ids"] == [states[0]["id"], states[1]["id"]]
    assert (rehearsed["count"], rehearsed["unknown"], rehearsed["dry_run"]) == (2, ["never"], True)
    assert (await api.get("/v1/item", params={"id": "own/0"})).status_code == 200
    done = (await api.post("/v1/items:delete", body)).json()
    assert done | {"request_id": 0} == rehearsed | {"dry_run": False, "request_id": 0}
    stones = await everything(api, since=states[2]["revision"], deleted=True)
    assert {stone["id"] for stone in stones} == set(done["ids"])
    assert len({stone["revision"] for stone in stones}) == 1
    again = (await api.post("/v1/items:delete", body)).json()
    assert (again["count"], again["unknown"]) == (0, body["ids"])
    assert (await api.get("/v1/item", params={"id": "own/2"})).status_code == 200


async def test_items_that_pass_a_filter_are_deleted(api: Api, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of them a request. What does not pass stays."""
    monkeypatch.setattr(schemas, "MAX_DELETE", 2)
    states = await put(*({"id": f"own/{n}", "kind": "lamp", "title": f"Lamp {n}", "year": 1900 + n} for n in range(4)))
    uids = [state["id"] for state in states]
    body = {"filter": {"kind": ["lamp"], "year": {"gte": 1901}}}
    rehearsed = (await api.post("/v1/items:delete", body | {"dry_run": True})).json()
    assert (rehearsed["count"], rehearsed["more"], rehearsed["unknown"]) == (2, True, [])
    first = (await api.post("/v1/items:delete", body)).json()
    assert (first["ids"], first["more"]) == (rehearsed["ids"], True)
    second = (await api.post("/v1/items:delete", body)).json()
    assert (second["count"], second["more"]) == (1, False)
    assert {*first["ids"], *second["ids"]} == set(uids[1:])
    assert (await api.post("/v1/items:delete", body)).json()["count"] == 0
    assert (await api.get("/v1/item", params={"id": uids[0]})).status_code == 200


async def test_a_delete_by_an_unknown_attribute_deletes_nothing(api: Api, put: Any) -> None:
    await put({"id": "own/1", "title": "Number 1"})
    refused = await api.post("/v1/items:delete", {"filter": {"or": [{"nonsense": ["x"]}, {"kind": ["item"]}]}})
    assert error(refused) == BAD
    assert "nonsense" in refused.json()["message"]
    assert (await api.get("/v1/item", params={"id": "own/1"})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["x"] * 1001},
        {"ids": "x"},
        {"ids": [""]},
        {"ids": ["x"], "dry_run": "no"},
        {"filter": {}},
        {"filter": {"and": []}},
        {"ids": ["x"], "filter": {"kind": ["film"]}},
    ],
)
async def test_deletes_that_will_not_do(api: Api, body: Any) -> None:
    assert error(await api.post("/v1/items:delete", body)) == BAD
