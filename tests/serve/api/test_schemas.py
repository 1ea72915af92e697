"""Bad input, route by route: always the envelope, never a 5xx (`Api` checks both on every answer)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serve.api_client import JSON, Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

BAD = (422, "invalid")
UNREADABLE = (400, "bad_request")
LONG = "a" * 100_000
NESTED: dict[str, Any] = {"not": {"not": {"not": {"not": {"not": {"not": {"kind": ["film"]}}}}}}}
RANKING = ["/v1/search", "/v1/recommend"]
POSTS = [*RANKING, "/v1/describe"]


@pytest.mark.parametrize("text", ["", " \t\n ", LONG, "a\x00b", "\x07", "\ud800", "x\udfffy", 7, None, ["a"], {"a": 1}, True])
async def test_texts_that_will_not_do(api: Api, text: Any) -> None:
    body = json.dumps({"text": text})
    assert error(await api.raw("/v1/search", body)) == BAD
    if text is not None:
        assert error(await api.raw("/v1/recommend", body)) == BAD
    assert error(await api.raw("/v1/recommend", json.dumps({"likes": [text]}))) == BAD
    assert error(await api.raw("/v1/recommend", json.dumps({"dislikes": [{"title": text}]}))) == BAD


@pytest.mark.parametrize(
    "text", ["👩‍🚀🎬", "Ω≈ç√", "日本の怪談", "\u202eabc", "a" * 4000, "!!!", "the", "' OR 1=1 --", "<script>", "%00", "\\", "e\u0301"]
)
async def test_texts_that_will(api: Api, text: str) -> None:
    for mode in ("dense", "sparse", "hybrid"):
        assert (await api.post("/v1/search", {"text": text, "mode": mode, "k": 2})).status_code == 200
    assert (await api.post("/v1/recommend", {"text": text, "k": 2})).status_code == 200
    assert (await api.get("/v1/items", params={"q": text[:500]})).status_code == 200
    assert (await api.post("/v1/describe", {"item": {"title": text[:500], "overview": text}})).status_code == 200
    assert (await api.post("/v1/recommend", {"likes": [text[:500]]})).status_code in (200, 404, 409)


@pytest.mark.parametrize("k", [0, -1, 1001, 10_000, "x", "", 1.5, None, [1], True, 10**30])
async def test_k_that_will_not_do(api: Api, k: Any) -> None:
    for path, body in (("/v1/search", {"text": "x"}), ("/v1/recommend", {})):
        assert error(await api.post(path, body | {"k": k})) == BAD
    if k not in (None, True) and k != [1]:
        assert error(await api.get("/v1/items/metropolis-1927/similar", params={"k": str(k)})) == BAD


async def test_k_above_the_servers_limit_names_the_setting(api: Api) -> None:
    for response in (
        await api.post("/v1/search", {"text": "x", "k": 101}),
        await api.post("/v1/recommend", {"k": 101}),
        await api.get("/v1/items/metropolis-1927/similar", params={"k": 101}),
    ):
        assert error(response) == BAD
        assert "search.max_k" in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/search", {"text": "x", "limit": 3}, "limit: unknown field"),
        ("/v1/recommend", {"like": ["x"]}, "like: unknown field"),
        (
            "/v1/search",
            {"text": "x", "filter": {"director": ["x"]}},
            "filter.director: no attribute of this catalogue; there are: kind (keyword)",
        ),
        ("/v1/search", {"text": "x", "filter": {"genres": "Drama"}}, "filter.genres"),
        ("/v1/search", {"text": "x", "filter": {"genres": [""]}}, "filter.genres.0"),
        ("/v1/search", {"text": "x", "filter": {"genres": ["x"] * 10_000}}, "filter.genres: more than 1,000 values"),
        ("/v1/search", {"text": "x", "filter": {"year": 2000}}, "filter.year"),
        ("/v1/search", {"text": "x", "filter": {"year": {"gte": 2, "lte": 1}}}, "an empty range"),
        ("/v1/search", {"text": "x", "filter": {"year": {"gte": 1e300}}}, "filter.year.gte"),
        ("/v1/search", {"text": "x", "filter": None}, "filter"),
        ("/v1/search", {"text": "x", "filter": NESTED}, "filter.not.not.not.not.not.not: and, or and not are nested deeper than 5"),
        ("/v1/search", {"text": "x", "filter": {"and": []}}, "filter.and: not a list of filters"),
        ("/v1/search", {"text": "x", "filter": {"genres": {"any": []}}}, "filter.genres.any: not a list with at least one value"),
        ("/v1/search", {"text": "x", "filter": {"genres": {"some": ["x"]}}}, "filter.genres.some: no such operator"),
        ("/v1/search", {"text": "x", "filter": {"or": [{"year": ["x"]}]}}, "filter.or.0.year: year is of type integer"),
        ("/v1/recommend", {"filter": {"year": {"gte": "1999-01-01"}}}, "a range of dates can't be asked of it"),
        ("/v1/recommend", {"likes": ["Metropolis"], "filter": {"kind": {"gte": 1}}}, "filter.kind: kind is of type keyword"),
        ("/v1/search", {"text": "x", "mode": "magic"}, "mode"),
        ("/v1/search", {"text": "x", "exact": "maybe"}, "exact"),
        ("/v1/search", {"text": "x", "diversity": 1.01}, "diversity"),
        ("/v1/search", {"text": "x", "diversity": "a"}, "diversity"),
        ("/v1/recommend", {"likes": "Metropolis"}, "likes"),
        ("/v1/recommend", {"likes": [{}]}, "exactly one of id, title, item"),
        ("/v1/recommend", {"likes": [{"id": "a", "title": "b"}]}, "exactly one of id, title, item"),
        ("/v1/recommend", {"likes": [{"item": {"title": ""}}]}, "title"),
        ("/v1/recommend", {"likes": ["x"] * 51}, "likes"),
        ("/v1/recommend", {"strategy": "worst"}, "strategy"),
        ("/v1/recommend", {"exclude": ["x"] * 1001}, "exclude"),
        ("/v1/recommend", {"exclude": [""]}, "exclude.0"),
        ("/v1/describe", {}, "exactly one of id, item"),
        ("/v1/describe", {"id": "a", "item": {"title": "b"}}, "exactly one of id, item"),
        ("/v1/describe", {"item": {"title": "x", "year": 99999}}, "item.year"),
        ("/v1/describe", {"item": {"title": "  "}}, "item.title"),
        ("/v1/describe", {"item": {"title": "x", "genres": [" "]}}, "item.genres.0"),
        ("/v1/describe", {"item": {"title": "x", "colour": "red"}}, "unknown field"),
        ("/v1/describe", {"item": {"title": "x", "people": {"Not A Key": ["y"]}}}, "item.people"),
        ("/v1/describe", {"item": {"title": "x", "overview": "y" * 20_001}}, "item.overview"),
        ("/v1/describe", {"item": {"title": "x", "numbers": {"votes": 1e16}}}, "item.numbers.votes"),
    ],
)
async def test_the_message_says_where(api: Api, path: str, body: dict[str, Any], where: str) -> None:
    response = await api.post(path, body)
    assert error(response) == BAD
    assert where in response.json()["message"]


async def test_a_made_up_name_does_not_swell_the_message(api: Api) -> None:
    response = await api.post("/v1/search", {"text": "x", LONG: 1})
    assert error(response) == BAD
    assert len(response.json()["message"]) < 300


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
async def test_numbers_that_are_none(api: Api, literal: str) -> None:
    for body in ('{"text":"x","diversity":N}', '{"text":"x","k":N}', '{"text":"x","filter":{"year":{"gte":N}}}'):
        assert error(await api.raw("/v1/search", body.replace("N", literal))) == BAD
    assert error(await api.raw("/v1/describe", '{"item":{"title":"x","numbers":{"votes":N}}}'.replace("N", literal))) == BAD


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"filter":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"text":"x","k":' + b"9" * 5000 + b"}",
        b'{"text":"\xff\xfe"}',
        b'{"text":"x"',
        b"{'text':'x'}",
        b'{"text":"x"} trailing',
        b"\x00",
        b"nonsense",
    ],
    ids=["deep open", "deep lists", "deep field", "deep objects", "huge int", "not UTF-8", "cut", "quotes", "trailing", "NUL", "word"],
)
async def test_bodies_that_are_not_json(api: Api, content: bytes) -> None:
    for path in POSTS:
        response = await api.raw(path, content)
        assert error(response) == UNREADABLE
        assert response.json()["message"].startswith("the body is not JSON")


async def test_nesting_that_json_allows_is_refused_by_the_schema(api: Api) -> None:
    assert error(await api.raw("/v1/search", b'{"text":' + b"[" * 300 + b"]" * 300 + b"}")) == BAD


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"1", b'"x"', b"true"])
async def test_json_that_is_no_object(api: Api, content: bytes) -> None:
    for path in POSTS:
        assert error(await api.raw(path, content)) == BAD


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x"])
async def test_wrong_content_types(api: Api, content_type: str | None) -> None:
    response = await api.raw("/v1/search", b'{"text":"x"}', {} if content_type is None else {"content-type": content_type})
    assert error(response) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in response.json()["message"]


async def test_a_byte_order_mark_is_forgiven(api: Api) -> None:
    assert (await api.raw("/v1/search", b'\xef\xbb\xbf{"text":"x"}')).status_code == 200


async def test_json_by_another_name(api: Api) -> None:
    for content_type in ("application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"):
        assert (await api.raw("/v1/search", b'{"text":"x"}', {"content-type": content_type})).status_code == 200


async def test_a_body_over_the_limit_is_refused_before_it_is_read(api: Api) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = await api.raw("/v1/search", never(), JSON | {"content-length": "1000001"})
    assert error(response) == (413, "too_large")
    assert "serving.max_body_bytes" in response.json()["message"]
    assert error(await api.raw("/v1/search", never(), JSON | {"content-length": "9" * 5000})) == (413, "too_large")


async def test_a_chunked_body_over_the_limit_is_refused_at_the_limit(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield b" " * 100_000

    assert error(await api.raw("/v1/search", endless())) == (413, "too_large")
    assert sent <= 1_200_000


async def test_a_body_at_the_limit_is_read(api: Api) -> None:
    body = b'{"text":"x"}'
    assert (await api.raw("/v1/search", body + b" " * (1_000_000 - len(body)))).status_code == 200


@pytest.mark.parametrize(
    "id", ["unknown", "00000000-0000-0000-0000-000000000000", "%00", "%ED%A0%80", "%F0%9F%8E%AC", "a" * 3000, "9" * 32, "..%2f"]
)
async def test_unknown_ids(api: Api, id: str) -> None:
    for method, path in (("GET", f"/v1/items/{id}"), ("GET", f"/v1/items/{id}/similar"), ("DELETE", f"/v1/items/{id}")):
        assert error(await api(method, path)) == (404, "not_found")


async def test_unknown_ids_and_titles_in_bodies(api: Api) -> None:
    uid = "00000000-0000-0000-0000-000000000000"
    for body in ({"likes": [uid]}, {"likes": [{"id": "x"}]}, {"dislikes": [{"title": "No Such Film At All"}]}, {"likes": ["x" * 500]}):
        assert error(await api.post("/v1/recommend", body)) == (404, "not_found")
    assert error(await api.post("/v1/describe", {"id": "unknown"})) == (404, "not_found")
    assert error(await api.post("/v1/recommend", {"likes": ["x" * 4001]})) == BAD
    assert (await api.post("/v1/recommend", {"exclude": [uid, "unknown"]})).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "q=", "q=" + "a" * 501, "since=-1", "since=x", "since=" + "9" * 30, "cursor=zz", "cursor=" + "a" * 65, "cursor=", "limit=0",
        "limit=1001", "limit=x", "origin=api%0A", "origin=file|api", "origin=", "deleted=perhaps",
    ],
)  # fmt: skip
async def test_queries_of_the_list_that_will_not_do(api: Api, query: str) -> None:
    assert error(await api.get(f"/v1/items?{query}")) == BAD


@pytest.mark.parametrize(
    "query", ["kind=", "kind=%00", "genres=" + "a" * 201, "limit=0", "limit=201", "limit=x", "&".join(["language=x"] * 65)]
)
async def test_queries_of_the_facets_that_will_not_do(api: Api, query: str) -> None:
    assert error(await api.get(f"/v1/facets?{query}")) == BAD


@pytest.mark.parametrize("query", ["k=x", "k=", "diversity=nan", "diversity=inf", "diversity=2", "diversity=-0.1"])
async def test_queries_of_similar_that_will_not_do(api: Api, query: str) -> None:
    assert error(await api.get(f"/v1/items/metropolis-1927/similar?{query}")) == BAD


async def test_titles_of_invisible_characters_are_refused(api: Api) -> None:
    for response in (await api.put({"title": "\u200b\u3164"}), await api.post("/v1/recommend", {"likes": ["\u3164"]})):
        assert error(response) == (422, "invalid")
        assert "no character that can be seen" in response.json()["message"]
