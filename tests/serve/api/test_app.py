"""Each route as it is meant to be used, and the headers that every answer carries."""

import re

import pytest

from tests.serve.api_client import Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

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


async def test_describe_a_cold_item_and_a_stored_one(api: Api) -> None:
    cold = (await api.post("/v1/describe", {"item": COLD})).json()
    assert cold["description"] == "A Film of Nobody, in other words."
    assert cold["item"] == COLD
    assert (cold["source"], cold["marked"], cold["violations"]) == ("model", False, [])
    stored = (await api.post("/v1/describe", {"id": "metropolis-1927"})).json()
    assert stored["item"]["title"] == A_FILM
    marked = (await api.post("/v1/describe", {"item": {"title": "Marked"}})).json()
    assert (marked["source"], marked["marked"], len(marked["violations"])) == ("template", True, 1)


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


async def test_page_and_documents(api: Api) -> None:
    page = await api.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    docs = await api.get("/docs")
    assert "default-src 'self'" in docs.headers["content-security-policy"]
    assert "script-src" not in docs.headers["content-security-policy"], "scripts have the default: files of this server"
    assert "<script>" not in docs.text
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text + docs.text):
        assert not name.startswith(("/", "http")), "relative, for a path prefix"
        if name != "#":
            assert (await api.get(f"/{name}")).status_code == 200
    assert (await api.get("/openapi.json")).json()["openapi"].startswith("3.1")


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
