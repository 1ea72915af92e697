"""Each route as it is meant to be used, and the headers that every answer carries."""

import re

import pytest

from tests.serve.api_client import Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

A_FILM = "Metropolis"


async def film(api: Api, title: str = A_FILM) -> dict:
    return (await api.get("/v1/items", params={"q": title})).json()["items"][0]


async def test_facets_count_what_the_filter_leaves(api: Api) -> None:
    everything = (await api.get("/v1/facets")).json()
    horror = (await api.get("/v1/facets", params={"genres": ["Horror"], "kind": ["film"]})).json()
    assert everything["count"] >= 40
    assert everything["approximate"] is False
    counts = {value["value"]: value["count"] for value in horror["genres"]}
    assert counts["Horror"] == horror["count"] == max(counts.values()) < everything["count"]
    assert len((await api.get("/v1/facets", params={"limit": 1})).json()["genres"]) == 1


async def test_info_names_versions_models_limits(api: Api) -> None:
    body = (await api.get("/v1/info")).json()
    assert body["index"]["fingerprint"] == body["embedder"]["fingerprint"]
    assert body["index"]["items"] >= 40
    assert body["index"]["recipe"] == "raw"
    assert body["limits"]["k"] == 100
    assert body["writable"] is True
    assert body["degraded"] == []
    assert body["catalogue"] == "demo"


async def test_probes(api: Api) -> None:
    assert (await api.get("/livez")).json() == {"alive": True}
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


@pytest.mark.parametrize("given", ["abc-123", "x" * 128])
async def test_a_request_id_comes_back(api: Api, given: str) -> None:
    response = await api.post("/v1/search", {"text": "x"}, headers={"x-request-id": given})
    assert response.headers["x-request-id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "tab\there", b"\xff\xfe"])
async def test_a_request_id_that_would_not_do_is_replaced(api: Api, given: str) -> None:
    response = await api.get("/v1/info", headers={"x-request-id": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_server_timing_names_the_stages(api: Api) -> None:
    timing = (await api.post("/v1/search", {"text": "a text that nobody has sent before"})).headers["server-timing"]
    assert [re.fullmatch(r"(\w+);dur=[\d.]+", stage)[1] for stage in timing.split(", ")] == ["embed", "retrieve", "total"]  # type: ignore[index]
    assert (await api.get("/nothing")).headers["server-timing"].startswith("total;dur=")


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/nothing", "/v1/items/", "/static/nothing.js", "/static/%2e%2e/api.py", "/static/%00"]
)
async def test_unknown_routes(api: Api, path: str) -> None:
    assert error(await api.get(path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/items/", "leave out the slash"),
        ("/v1/search/", "leave out the slash"),
        ("/v1/items/own-1/", "leave out the slash"),
        ("/v1/catalogues/", "leave out the slash"),
        ("/v1/catalogues/demo/search/", "leave out the slash"),
        ("/v1/catalogues/demo//", "/docs lists the routes"),
        ("/v1/serach", "did you mean POST /v1/search?"),
        ("/v1/catalogues/demo/recomend", "did you mean POST /v1/recommend?"),
        ("/recommend", "/docs lists"),
        ("/v1/" + "x" * 3000, "/docs lists"),
    ],
)
async def test_an_unknown_route_gets_a_hint(api: Api, path: str, hint: str) -> None:
    response = await api.get(path)
    assert error(response) == (404, "not_found")
    assert hint in response.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/search", "POST"),
        ("PATCH", "/v1/items", "GET, PUT"),
        ("POST", "/v1/items/x", "DELETE, GET, PATCH"),
        ("OPTIONS", "/v1/recommend", "POST"),
        ("HEAD", "/v1/info", "GET"),
        ("HEAD", "/", "GET"),
        ("DELETE", "/livez", "GET"),
        ("TRACE", "/v1/facets", "GET"),
    ],
)
async def test_wrong_methods_are_told_the_right_ones(api: Api, method: str, path: str, allowed: str) -> None:
    response = await api(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert method == "HEAD" or f"takes {allowed}, not {method}" in response.json()["message"]
