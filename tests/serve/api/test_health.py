"""What the API says when parts are absent, late, full or closed to this caller."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from matinee.errors import DeadlineError, FingerprintError, OverloadedError
from serve.api.auth import new_key
from serve.errors import UnavailableError
from serve.graph.lane_queue import Lane
from serve.graph.microbatch import MicroBatcher
from tests.serve.api_client import Api, error
from tests.waiting import HANG_S

Bent = Callable[..., AbstractAsyncContextManager[Api]]

ITEM = {"title": "A Cold Item"}
READS = [
    ("POST", "/v1/search", {"text": "x"}),
    ("POST", "/v1/search", {"text": "x", "mode": "sparse"}),
    ("POST", "/v1/recommend", {}),
    ("POST", "/v1/recommend", {"likes": ["x"]}),
    ("POST", "/v1/recommend", {"likes": [{"item": ITEM}]}),
    ("POST", "/v1/describe", {"id": "x"}),
    ("GET", "/v1/items/x/similar", None),
    ("GET", "/v1/items/x", None),
    ("GET", "/v1/items", None),
    ("GET", "/v1/items?q=x", None),
    ("GET", "/v1/facets", None),
]
WRITES = [("PUT", "/v1/items", {"items": [ITEM]}), ("DELETE", "/v1/items/x", None)]


async def test_without_an_index_data_routes_say_so_and_the_process_is_well(bent: Bent) -> None:
    async with bent(films=0) as api:
        for method, path, body in [*READS, *WRITES]:
            response = await api(method, path, json=body)
            assert error(response) == (503, "index_absent"), path
            assert response.headers["retry-after"] == "1"
            assert "matinee ingest" in response.json()["message"]
        assert (await api.get("/livez")).status_code == 200
        ready = await api.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        assert "index_absent" in ready.json()["reasons"][0]
        info = await api.get("/v1/info")
        assert (info.status_code, info.json()["index"]) == (200, None)
        assert (await api.post("/v1/describe", {"item": ITEM})).status_code == 200


class Held:
    """A part that holds every call until `release` is set."""

    def __init__(self, part: Any) -> None:
        self.part, self.release, self.holds_two, self.calls = part, asyncio.Event(), asyncio.Event(), 0

    async def __call__(self, unit: Any, deadline: float) -> Any:
        self.calls += 1
        if self.calls == 2:
            self.holds_two.set()
        await self.release.wait()
        return await self.part(unit, deadline)


async def test_the_door_refuses_what_is_too_much_at_once(bent: Bent) -> None:
    limits = {"deployment": {"max_ongoing_requests": 2, "target_ongoing_requests": 1}}
    async with bent(films=3, serving=limits) as api:
        held = Held(api.service.graph.retriever)
        api.service.graph = type(api.service.graph)(api.service.graph.embedder, held, None, api.service.graph.infos)
        inside = [asyncio.create_task(api.get("/v1/items")) for _ in range(2)]
        await held.holds_two.wait()
        refused = await api.get("/v1/items", headers={"x-request-id": "mine"})
        assert error(refused) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-request-id"] == "mine"
        assert (await api.get("/livez")).status_code == 200
        held.release.set()
        assert [response.status_code for response in await asyncio.gather(*inside)] == [200, 200]
        assert (await api.get("/v1/items")).status_code == 200


async def test_an_answer_that_does_not_come_in_time_is_a_504(bent: Bent) -> None:
    async def never(batch: Any, early: Any) -> Any:
        await asyncio.Event().wait()

    stuck: MicroBatcher[Any, Any] = MicroBatcher("embedder", never, max_batch=1, max_in_flight=1, lanes=[Lane(9)])
    quick = {"serving": {"deadline_s": 0.2}, "enhancer": {"deadline_s": 0.1}}
    async with bent(films=3, parts={"embedder": stuck}, **quick) as api:
        assert error(await api.post("/v1/search", {"text": "x"})) == (504, "deadline")
    async with bent(films=3, parts={"embedder": stuck}, serving={"deadline_s": HANG_S, "drain_s": HANG_S}) as api:
        assert (await api.post("/v1/search", {"text": "x", "mode": "sparse"})).status_code == 200


@pytest.mark.parametrize("late", [DeadlineError("late"), OverloadedError("full"), UnavailableError("gone")])
async def test_a_late_enhancer_degrades_what_can_do_without_it(bent: Bent, late: Exception) -> None:
    async with bent() as api:
        api.enhancer.fails = late
        cold = await api.post("/v1/recommend", {"likes": [{"item": ITEM}, {"item": ITEM | {"year": 1}}], "enhance": True})
        assert (cold.status_code, cold.json()["degraded"]) == (200, ["enhancer"])
        wide = await api.post("/v1/search", {"text": "x", "expand": True})
        assert (wide.status_code, wide.json()["degraded"]) == (200, ["enhancer"])
        status = 504 if isinstance(late, DeadlineError) else 503
        assert error(await api.post("/v1/describe", {"item": ITEM})) == (status, late.code)  # type: ignore[attr-defined]
        api.enhancer.fails = None
        assert (await api.post("/v1/search", {"text": "x", "expand": True})).json()["degraded"] == []


async def test_an_absent_enhancer_is_like_a_late_one(bent: Bent) -> None:
    async with bent(parts={"enhancer": None}) as api:
        assert (await api.post("/v1/recommend", {"likes": [{"item": ITEM}], "enhance": True})).json()["degraded"] == ["enhancer"]
        assert (await api.post("/v1/search", {"text": "x", "expand": True})).json()["degraded"] == ["enhancer"]
        assert error(await api.post("/v1/describe", {"item": ITEM})) == (503, "unavailable")
        plain = (await api.post("/v1/recommend", {"likes": [{"item": ITEM}]})).json()
        assert plain["degraded"] == []


async def test_sparse_search_never_asks_the_enhancer(bent: Bent) -> None:
    async with bent() as api:
        api.enhancer.fails = UnavailableError("gone")
        body = (await api.post("/v1/search", {"text": "x", "mode": "sparse", "expand": True})).json()
        assert body["degraded"] == []


async def test_vectors_of_another_encoder_are_refused(bent: Bent) -> None:
    async with bent() as api:
        real = api.service.graph.embedder

        async def other(unit: Any, deadline: float) -> Any:
            made = await real(unit, deadline)
            return type(made)("f" * 64, made.vectors)

        api.service.graph = type(api.service.graph)(other, api.service.graph.retriever, None, api.service.graph.infos)
        for method, path, body in (READS[0], ("POST", "/v1/recommend", {"text": "x"}), WRITES[0]):
            assert error(await api(method, path, json=body)) == (503, FingerprintError.code)
        assert (await api.post("/v1/search", {"text": "x", "mode": "sparse"})).status_code == 200


ADMIN = (("search", "exact"), ("search", "debug"), ("recommend", "debug"))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_keys_and_scopes(bent: Bent) -> None:
    made = {scope: new_key(scope, (scope,)) for scope in ("read", "write", "admin")}  # type: ignore[arg-type]
    keys = [entry.model_dump() for _, entry in made.values()]
    async with bent(serving={"keys": keys}) as api:
        admin = [("POST", f"/v1/{route}", {"text": "x", name: True}) for route, name in ADMIN]
        for headers in ({}, bearer("wrong"), {"authorization": made["read"][0]}, {"authorization": "Basic eDp5"}, bearer(""), bearer("ü")):
            for method, path, body in [*READS, *WRITES, *admin, ("GET", "/v1/info", None)]:
                encoded = {name: value.encode("latin-1") for name, value in headers.items()}
                response = await api(method, path, json=body, headers=encoded)
                assert error(response) == (401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
        may = {"read": READS, "write": WRITES, "admin": [*READS, *WRITES, *admin]}
        for scope, (key, _) in made.items():
            for call in [*READS, *WRITES, *admin]:
                response = await api(call[0], call[1], json=call[2], headers=bearer(key))
                assert (response.status_code in (401, 403)) == (call not in may[scope]), (scope, call)
                if response.status_code == 403:
                    assert error(response) == (403, "forbidden")
                    assert key not in response.text
        for path in ("/livez", "/readyz", "/", "/docs"):
            assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("host", "open_"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.7", False)]
)
async def test_without_keys_only_a_loopback_host_takes_writes(bent: Bent, host: str, open_: bool) -> None:
    async with bent(films=2, serving={"host": host}) as api:
        for method, path, body in [*WRITES, *(("POST", f"/v1/{route}", {"text": "x", name: True}) for route, name in ADMIN)]:
            response = await api(method, path, json=body)
            assert (response.status_code == 403) is not open_
            if not open_:
                assert "serving.keys" in response.json()["message"]
        assert (await api.post("/v1/search", {"text": "x"})).status_code == 200
        assert (await api.get("/v1/info")).json()["writable"] is open_


async def test_a_bug_is_a_500_in_the_envelope_and_tells_nothing(bent: Bent, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: Any) -> Any:
        raise KeyError("a secret of the server")

    async with bent(films=2, parts={"retriever": broken}) as api:
        response = await api.client.get("/v1/facets", headers={"x-request-id": "mine"})
    assert error(response) == (500, "internal")
    assert set(response.json()) == {"code", "message", "request_id"}
    assert "secret" not in response.text
    [told] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert getattr(told, "fields", {})["request_id"] == "mine"
    assert "a secret of the server" in caplog.text


async def test_time_is_left_of_the_deadline_for_each_part(bent: Bent) -> None:
    seen: list[float] = []

    async def retriever(unit: Any, deadline: float) -> Any:
        seen.append(deadline - time.monotonic())
        raise DeadlineError("late")

    async with bent(films=2, parts={"retriever": retriever}) as api:
        assert error(await api.get("/v1/facets")) == (504, "deadline")
    assert 0 < seen[0] <= 15


async def test_a_key_without_the_scope_is_refused_before_its_body_is_read(bent: Bent) -> None:
    reader, entry = new_key("reader", ("read",))
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{}"

    async with bent(films=3, serving={"keys": [entry.model_dump()]}) as api:
        headers = {"authorization": f"Bearer {reader}", "content-type": "application/json"}
        assert error(await api("PUT", "/v1/items", content=body(), headers=headers)) == (403, "forbidden")
        assert error(await api("PUT", "/v1/items", content=body())) == (401, "unauthorized")
        assert error(await api("POST", "/v1/feedback", content=body(), headers=headers)) == (403, "forbidden")
        assert read == []
