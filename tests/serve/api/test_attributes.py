"""A catalogue that is no film's: its attributes in filters, counts and listings, on every route that takes a filter."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from matinee.catalogue.proposal import propose_attributes
from matinee.catalogue.reader import read_items
from matinee.filters.attributes import DEFAULT_ATTRIBUTES
from tests.serve.api_client import Api, connected, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

GROCERIES = Path(__file__).parents[3] / "examples" / "groceries" / "groceries.jsonl"
BAD = (422, "invalid")
VEGAN = {"and": [{"diet": {"all": ["vegan", "gluten-free"]}}, {"not": {"storage": ["frozen"]}}]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The app over 40 groceries with the attributes that an ingest proposes."""
    items = list(read_items(GROCERIES))
    attributes, _ = propose_attributes(items)
    home = tmp_path_factory.mktemp("shop")
    async with local_graph.build_local_graph(home, films=items, attributes=attributes) as service, connected(service) as api:
        yield api


def is_meant(item: dict[str, Any]) -> bool:
    diet = item.get("extra", {}).get("diet", [])
    diet = [diet] if isinstance(diet, str) else diet
    return {"vegan", "gluten-free"} <= set(diet) and item["extra"]["storage"] != "frozen"


async def stored(api: Api, **params: Any) -> list[dict[str, Any]]:
    return (await api.get("/v1/items", params={"limit": 1000, **params})).json()["items"]


async def test_info_shows_the_attributes(shop: Api, api: Api) -> None:
    declared = (await shop.get("/v1/info")).json()["index"]["attributes"]
    assert declared["storage"] == {"type": "keyword", "source": "extra.storage", "many": False, "facet": True}
    assert declared["sugar_g"]["type"] == "float"
    # An index without a declaration has those of a film.
    assert set((await api.get("/v1/info")).json()["index"]["attributes"]) == set(DEFAULT_ATTRIBUTES)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"text": "drink"}),
        ("/v1/search", {"text": "drink", "mode": "sparse"}),
        ("/v1/search", {"text": "drink", "mode": "dense", "diversity": 0.5}),
        ("/v1/recommend", {}),
        ("/v1/recommend", {"likes": ["Whole Milk"], "dislikes": ["Oat Drink Barista"]}),
        ("/v1/similar", {"id": "whole-milk"}),
        ("/v1/similar", {"title": "Whole Milk"}),
        ("/v1/similar", {"item": {"title": "Rice Drink", "kind": "grocery", "overview": "A sweet drink made from rice."}}),
    ],
)
async def test_every_ranking_keeps_to_the_filter(shop: Api, path: str, body: dict[str, Any]) -> None:
    response = await shop.post(path, body | {"k": 100, "filter": VEGAN})
    found = response.json()["items"]
    assert found
    assert all(is_meant(card["item"]) for card in found)
    if body.get("mode") != "sparse":
        meant = [entry for entry in await stored(shop) if is_meant(entry["item"])]
        assert len(found) == len(
            [entry for entry in meant if entry["item"].get("id") not in ("whole-milk", "oat-drink-barista")] if "likes" in body else meant
        )
    refused = await shop.post(path, body | {"filter": {"colour": ["red"]}})
    assert error(refused) == BAD
    assert "filter.colour: no attribute of this catalogue; there are: kind (keyword)" in refused.json()["message"]
    assert "storage (keyword)" in refused.json()["message"]


async def test_listing_suggestions_and_counts_keep_to_it_too(shop: Api) -> None:
    everything, text = await stored(shop), json.dumps(VEGAN)
    meant = {entry["id"] for entry in everything if is_meant(entry["item"])}
    assert {entry["id"] for entry in await stored(shop, filter=text)} == meant
    assert {entry["id"] for entry in await stored(shop, filter=text, q="oat")} <= meant
    counted = (await shop.get("/v1/facets", params={"filter": text})).json()
    assert counted["count"] == len(meant)
    storage = [entry["item"]["extra"]["storage"] for entry in everything if entry["id"] in meant]
    assert {row["value"]: row["count"] for row in counted["facets"]["storage"]} == {value: storage.count(value) for value in storage}
    assert "sugar_g" not in counted["facets"]
    for params in ({"filter": "{"}, {"filter": "[]"}, {"filter": '{"colour": ["red"]}'}, {"filter": '{"year": {"gte": 2, "lte": 1}}'}):
        for path in ("/v1/items", "/v1/facets"):
            assert error(await shop.get(path, params=params)) == BAD


async def test_counts_of_one_attribute(shop: Api) -> None:
    counted = (await shop.get("/v1/facets", params={"attribute": ["storage"], "genres": ["Drinks"], "filter": json.dumps(VEGAN)})).json()
    assert list(counted["facets"]) == ["storage"]
    assert counted["kind"] == []
    assert 0 < counted["count"] < 40
    refused = await shop.get("/v1/facets", params={"attribute": "sugar_g"})
    assert error(refused) == BAD
    assert "storage (keyword)" in refused.json()["message"]


async def test_numbers_presence_and_or(shop: Api) -> None:
    filter = {"or": [{"sugar_g": {"gt": 4, "lte": 5}}, {"packaging": {"any": ["tin"]}}], "language": {"missing": True}}
    found = {entry["id"] for entry in await stored(shop, filter=json.dumps(filter))}
    meant = {
        entry["id"]
        for entry in await stored(shop)
        if 4 < entry["item"]["numbers"]["sugar_g"] <= 5 or entry["item"]["extra"]["packaging"] == "tin"
    }
    assert found == meant != set()


async def test_what_is_written_can_be_filtered_at_once(shop: Api) -> None:
    item = {"id": "new", "kind": "test", "title": "Ice", "extra": {"storage": "frozen", "size": "9 kg"}, "numbers": {"sugar_g": 1.5}}
    await shop.put(item)
    [entry] = await stored(shop, filter=json.dumps({"size": ["9 kg"], "sugar_g": {"lt": 2}, "kcal_per_100": {"missing": True}}))
    assert entry["item"]["id"] == "new"
    assert "attributes" not in entry
    await shop("DELETE", "/v1/items/new")
    assert await stored(shop, filter=json.dumps({"kind": ["test"]})) == []


@pytest.mark.parametrize("body", [{}, {"id": "a", "title": "b"}, {"id": ""}, {"title": " "}, {"item": {}}])
async def test_similar_takes_exactly_one(shop: Api, body: dict[str, Any]) -> None:
    assert error(await shop.post("/v1/similar", body)) == BAD


async def test_a_wrong_filter_fails_alone(shop: Api, local_graph: Any, bent: Callable[..., Any]) -> None:
    """Those that travel with it are answered."""
    import asyncio

    bodies = [{"text": "drink"}, {"text": "drink", "filter": {"colour": ["red"]}}, {"text": "drink", "filter": {"storage": ["chilled"]}}]
    answers = await asyncio.gather(*(shop.post("/v1/search", body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200, 422, 200]


async def test_pages_are_parts_of_one_list(shop: Api) -> None:
    whole = (await shop.post("/v1/search", {"text": "oat milk", "k": 40, "offset": 0})).json()["items"]
    paged = [(await shop.post("/v1/search", {"text": "oat milk", "k": 7, "offset": at})).json()["items"] for at in range(0, 42, 7)]
    assert [card for page in paged for card in page] == whole
    assert len({card["id"] for card in whole}) == 40
    diverse = [
        (await shop.post("/v1/recommend", {"likes": ["Whole Milk"], "k": 5, "offset": at, "diversity": 0.5})).json()["items"]
        for at in (0, 5)
    ]
    assert len({card["id"] for page in diverse for card in page}) == 10


@pytest.mark.parametrize(
    "body",
    [
        {"k": 2, "offset": 999},
        {"offset": -1},
        {"sort": [{"kcal_per_100": "up"}]},
        {"sort": [{}]},
        {"fields": ["price"]},
        {"k": 11, "group_by": {"attribute": "storage", "limit": 100}},
    ],
)
async def test_options_that_mean_nothing(shop: Api, body: dict[str, Any]) -> None:
    assert error(await shop.post("/v1/recommend", body)) == BAD
    assert error(await shop.post("/v1/recommend", {"sort": [{"kcal_per_100": "asc"}], "diversity": 0.5})) == BAD
    refused = await shop.post("/v1/recommend", {"group_by": {"attribute": "sugar_g"}})
    assert error(refused) == BAD
    assert "storage (keyword)" in refused.json()["message"]


async def test_sorted_grouped_counted_and_cut_down(shop: Api) -> None:
    body = {"text": "a drink", "k": 5, "sort": [{"kcal_per_100": "desc"}], "filter": VEGAN, "fields": ["title", "numbers.kcal_per_100"]}
    answer = (await shop.post("/v1/search", body | {"facets": ["storage"]})).json()
    meant = [entry["item"] for entry in await stored(shop) if is_meant(entry["item"])]
    energy = sorted((item["numbers"]["kcal_per_100"] for item in meant), reverse=True)
    assert [card["item"]["numbers"]["kcal_per_100"] for card in answer["items"]] == energy[:5]
    assert set(answer["items"][0]["item"]) == {"title", "numbers"}
    assert sum(row["count"] for row in answer["facets"]["storage"]) == len(meant)
    groups = (await shop.post("/v1/similar", {"id": "whole-milk", "k": 3, "group_by": {"attribute": "storage", "limit": 2}})).json()[
        "items"
    ]
    values = [card["group"] for card in groups]
    assert values == [value for one in dict.fromkeys(values) for value in [one] * values.count(one)]
    assert len(set(values)) == 3
    assert max(map(values.count, values)) <= 2
    best = (await shop.post("/v1/recommend", {"likes": ["Whole Milk"]})).json()["items"]
    floor = best[3]["score"]
    kept = (await shop.post("/v1/recommend", {"likes": ["Whole Milk"], "min_score": floor})).json()["items"]
    assert kept == best[:4]
