"""Items as lines: what can be used is written as it arrives, what can't is named by its line; nothing holds a whole body in memory."""

import asyncio
import codecs
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from matinee.errors import IndexUnavailableError, OverloadedError
from serve.graph import messages
from tests.serve.api_client import Api, error

LINES = {"content-type": "application/x-ndjson"}


def lines(items: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


async def upload(api: Api, content: Any, **headers: str) -> Any:
    return await api("POST", "/v1/items:batch", content=content, headers=LINES | headers)


def films(count: int, prefix: str = "line") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}-{n}", "title": f"Number {n}"} for n in range(count)]


async def ids(api: Api, prefix: str = "line") -> set[str]:
    found = [entry["item"].get("id", "") for entry in (await api.get("/v1/items", params={"limit": 1000, "origin": "api"})).json()["items"]]
    return {id for id in found if id.startswith(prefix)}


async def test_more_than_a_body_may_have_is_written_line_by_line(bent: Callable[..., Any]) -> None:
    async with bent(serving={"max_body_bytes": 20_000}) as api:
        items = [item | {"extra": {"note": "x" * 1900}} for item in films(130)]
        assert len(lines(items)) > 10 * 20_000
        answer = (await upload(api, lines(items))).json()
        assert (answer["lines"], answer["written"], answer["rejected"], answer["rejects"]) == (130, 130, 0, [])
        assert len(await ids(api)) == 130


async def test_what_can_not_be_used_is_told_by_line_and_reason(bent: Callable[..., Any]) -> None:
    async with bent(serving={"max_body_bytes": 1024}) as api:
        body = lines([{"id": "line-1", "title": "One"}]) + b"\n" + b'{"id": "line-3", "title": "Three", "year": "soon"}\r\n'
        body += b"[1]\n{\n" + lines([{"title": "x" * 2000}, {"id": "line-7", "title": "Seven"}]) + b'{"title": "x", "votes": 1}'
        answer = (await upload(api, codecs.BOM_UTF8 + body + b'\n{"title": "Am\xe9lie"}')).json()
        assert (answer["lines"], answer["written"], answer["rejected"]) == (8, 2, 6)
        reasons = {entry["line"]: entry["reason"] for entry in answer["rejects"]}
        assert sorted(reasons) == [3, 4, 5, 6, 8, 9]
        assert reasons[3].startswith("year: ")
        assert reasons[4] == "not a JSON object"
        assert reasons[5].startswith("not JSON")
        assert "longer than 1024 bytes" in reasons[6]
        assert reasons[8].startswith("votes: unknown field")
        assert reasons[9].startswith("not UTF-8")
        assert await ids(api) == {"line-1", "line-7"}


async def test_of_two_lines_with_one_id_the_later_one_stays(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        answer = (await upload(api, lines([*films(3), {"id": "line-1", "title": "Later"}, *films(1)]))).json()
        assert answer["written"] == 5
        assert (await api.get("/v1/items/line-1")).json()["item"]["title"] == "Later"


async def test_lines_may_come_in_pieces_and_compressed(bent: Callable[..., Any]) -> None:
    async with bent(serving={"max_body_bytes": 2000}) as api:

        async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        assert (await upload(api, pieces(lines(films(5)), 7))).json()["written"] == 5
        packed = gzip.compress(lines(item | {"extra": {"note": "again " * 300}} for item in films(110, "packed")))
        # It unpacks to many times what arrives at once.
        assert (await upload(api, pieces(packed, 999), **{"content-encoding": "gzip"})).json()["written"] == 110
        assert len(await ids(api, "packed")) == 110
        cut = await upload(api, packed[:-9], **{"content-encoding": "gzip"})
        assert error(cut) == (400, "bad_request")


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
async def test_nothing_at_all_is_no_error(bent: Callable[..., Any], content: bytes) -> None:
    async with bent() as api:
        answer = (await upload(api, content)).json()
        assert (answer["lines"], answer["written"], answer["rejected"]) == (0, 0, 0)


@pytest.mark.parametrize("media", ["application/json", "text/plain", "", "multipart/form-data"])
async def test_a_body_of_another_kind_is_refused(bent: Callable[..., Any], media: str) -> None:
    async with bent() as api:
        assert error(await upload(api, lines(films(1)), **{"content-type": media})) == (415, "unsupported_media_type")
        assert await ids(api) == set()


async def test_a_line_without_end_is_never_held_in_memory(bent: Callable[..., Any]) -> None:
    async with bent(serving={"max_body_bytes": 10_000}) as api:

        async def endless() -> AsyncIterator[bytes]:
            yield lines(films(1))
            for _ in range(400):
                yield b"x" * 65_536
            yield b"\n" + lines(films(1, "after"))

        await upload(api, lines(films(1)))
        tracemalloc.start()
        answer = (await upload(api, endless())).json()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (answer["written"], answer["rejected"]) == (2, 1)
        assert peak < 8 << 20


async def test_a_body_that_is_cut_off_leaves_whole_chunks_and_no_half_line(bent: Callable[..., Any]) -> None:
    """The client goes away in the middle of a line: what was written stays, the half line is not taken for a whole one."""
    async with bent() as api:
        events = [
            {"type": "http.request", "body": lines(films(110)) + b'{"id": "line-half", "title": "Half"}', "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return events.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
        scope |= {"path": "/v1/items:batch", "raw_path": b"/v1/items:batch", "query_string": b"", "root_path": ""}
        scope |= {"client": ("127.0.0.1", 5), "server": ("localhost", 80)}
        scope |= {"headers": [(b"host", b"localhost"), (b"content-type", b"application/x-ndjson")]}
        await api.client._transport.app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert b"100 items of its first 110 lines were written" in sent[1]["body"]
        found = await ids(api)
        assert len(found) == 100
        assert "line-half" not in found


async def test_a_client_below_the_lowest_rate_is_refused(bent: Callable[..., Any]) -> None:
    async with bent(serving={"bulk": {"stall_s": 0.2, "rate": 1000}}) as api:
        gone = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            yield lines(films(1))
            await gone.wait()

        assert error(await upload(api, stalling())) == (408, "late_body")
        gone.set()


async def test_time_that_the_server_takes_is_not_the_clients(bent: Callable[..., Any]) -> None:
    async with bent(serving={"bulk": {"stall_s": 0.5, "rate": 1_000_000_000}}) as api:
        retriever = api.service.graph.retriever

        async def slow(message: Any, deadline: float) -> Any:
            if isinstance(message, messages.Write):
                await asyncio.sleep(0.3)
            return await retriever(message, deadline)

        api.service.graph = type(api.service.graph)(api.service.graph.embedder, slow, None, {})

        async def pieces() -> AsyncIterator[bytes]:
            for n in range(3):
                yield lines([*films(1, f"line-{n}"), *films(1, f"line-{n}")])

        assert (await upload(api, pieces())).json()["written"] == 6


async def test_a_full_queue_is_waited_for_and_an_outage_says_how_far_it_came(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        retriever, writes = api.service.graph.retriever, 0

        async def failing(message: Any, deadline: float) -> Any:
            nonlocal writes
            if isinstance(message, messages.Write):
                writes += 1
                if writes == 1:
                    raise OverloadedError("full")
                if writes == 3:
                    raise IndexUnavailableError("the disk is full")
            return await retriever(message, deadline)

        api.service.graph = type(api.service.graph)(api.service.graph.embedder, failing, None, {})
        response = await upload(api, b"[]\n" + lines(films(110)))
        assert error(response) == (503, "index_unavailable")
        assert response.json()["message"] == "the disk is full; 100 items were written, and none from line 102 on: send those again"
        assert len(await ids(api)) == 100


async def test_without_an_index_nothing_is_read(bent: Callable[..., Any]) -> None:
    async with bent(films=0) as api:
        assert error(await upload(api, lines(films(1)))) == (503, "index_absent")


async def test_many_rejects_are_counted_and_the_first_are_told(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        answer = (await upload(api, b"{}\n" * 1500)).json()
        assert (answer["rejected"], len(answer["rejects"])) == (1500, 1000)
