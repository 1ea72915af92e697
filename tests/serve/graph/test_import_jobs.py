"""Import jobs: a body becomes a job beside the index, any gateway works on it, and what it writes is over nothing newer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from matinee.errors import IndexUnavailableError
from matinee.index.factory import open_store
from matinee.index.progress import BuildProgress
from serve.graph import import_jobs, messages
from serve.graph.bulk import Bulk
from serve.graph.import_jobs import ImportJobs
from serve.graph.item_writes import ItemWrites
from tests.serve.api_client import Api, connected, error
from tests.waiting import until_async

LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_jobs, "CHUNK", 3)


def lines(items: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def films(count: int, title: str = "Number") -> list[dict[str, Any]]:
    return [{"id": f"line-{n}", "title": f"{title} {n}"} for n in range(count)]


async def start(api: Api, content: Any) -> dict[str, Any]:
    response = await api("POST", "/v1/imports", content=content, headers=LINES)
    assert response.status_code == 202, response.text
    return dict(response.json())


def worker(api: Api, **options: Any) -> ImportJobs:
    """What another gateway would work with."""
    serving = api.service.settings.serving
    return ImportJobs(api.service, ItemWrites(api.service), Bulk(serving.bulk, serving.deadline_s), **options)


async def status(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    return dict((await api.get(f"/v1/imports/{job['id']}")).json())


async def title(api: Api, id: str) -> str | None:
    response = await api.get(f"/v1/items/{id}")
    return response.json()["item"]["title"] if response.status_code == 200 else None


async def test_an_import_is_taken_worked_on_and_told(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        job = await start(api, lines(films(7)) + b'\n{}\n{"title": "\xff"}\n' + lines([{"id": "line-9", "title": "Nine", "year": "x"}]))
        assert (job["status"], job["total"], job["lines"], job["source"], job["left_s"]) == ("queued", 10, 0, "body", None)
        assert await title(api, "line-0") is None
        assert await worker(api).work()
        done = await status(api, job)
        counts = {name: done[name] for name in ("status", "lines", "written", "skipped", "rejected", "left_s", "trouble")}
        assert counts == {"status": "done", "lines": 10, "written": 7, "skipped": 0, "rejected": 3, "left_s": 0.0, "trouble": None}
        assert [(entry["line"], entry["reason"][:5]) for entry in done["rejects"]] == [(9, "title"), (10, "not U"), (11, "year:")]
        assert done["rate"] > 0
        assert await title(api, "line-6") == "Number 6"
        assert (await api.get("/v1/imports")).json()["imports"] == [{k: v for k, v in done.items() if k != "request_id"}]
        assert not await worker(api).work()


async def test_an_ingest_that_is_under_way_is_listed(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        assert (await api.get("/v1/imports")).json()["build"] is None
        store = open_store(api.service.settings)
        async with store.lease():
            assert (await api.get("/v1/imports")).json()["build"] is None, "nothing is noted yet"
            progress = BuildProgress(version="v9", source="films.csv", started="2026-01-01", items=50, total=200, spent_s=10)
            await store.note_build(progress)
            build = (await api.get("/v1/imports")).json()["build"]
            assert build == progress.model_dump(exclude={"spent_s"}) | {"rate": 5.0, "left_s": 30.0}
        assert (await api.get("/v1/imports")).json()["build"] is None


async def test_an_empty_import_is_done_at_once(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        assert (await start(api, b"\n \n"))["status"] == "done"


async def test_what_was_written_or_deleted_after_the_import_was_asked_for_stays(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        await api.put(*films(3, "Before"))
        job = await start(api, lines(films(4)))
        await api.put({"id": "line-1", "title": "Newer"})
        await api("DELETE", "/v1/items/line-2")
        await worker(api).work()
        done = await status(api, job)
        assert (done["written"], done["skipped"]) == (2, 2)
        assert [await title(api, f"line-{n}") for n in range(4)] == ["Number 0", "Newer", None, "Number 3"]


async def test_of_two_lines_and_of_two_imports_the_later_one_counts(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        first = await start(api, lines([*films(4, "First"), *films(2, "Again")]))
        second = await start(api, lines(films(1, "Second")))
        one = worker(api)
        while await one.work():
            pass
        assert [await title(api, f"line-{n}") for n in range(4)] == ["Second 0", "Again 1", "First 2", "First 3"]
        assert [(await status(api, job))["skipped"] for job in (first, second)] == [0, 0]


async def test_a_gateway_that_dies_in_the_middle_loses_nothing_and_counts_nothing_twice(bent: Callable[..., Any]) -> None:
    """It dies at each step of its work in turn; another gateway goes on."""
    async with bent() as api:
        ask = api.service.graph.retriever
        for step in range(5):
            job = await start(api, lines(films(5, f"Round {step}")))
            left = step

            async def dying(message: Any, deadline: float) -> Any:
                nonlocal left
                if isinstance(message, (messages.SaveImport, messages.ReadChunk, messages.Write)):
                    # It dies when the work of its last step is done, and nobody heard of it.
                    result = await ask(message, deadline)
                    left -= 1
                    if left < 0:
                        raise asyncio.CancelledError
                    return result
                return await ask(message, deadline)

            api.service.graph = type(api.service.graph)(api.service.graph.embedder, dying, None, {})
            with pytest.raises(asyncio.CancelledError):
                await worker(api).work()
            api.service.graph = type(api.service.graph)(api.service.graph.embedder, ask, None, {})
            other = worker(api, expiry_s=0.0)
            await other.work()
            await other.work()
            done = await status(api, job)
            assert (done["status"], done["lines"], done["written"], done["skipped"]) == ("done", 5, 5, 0), step
            assert [await title(api, f"line-{n}") for n in range(5)] == [f"Round {step} {n}" for n in range(5)]


async def test_two_gateways_at_one_job_count_each_line_once(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        job = await start(api, lines(films(12)))
        await asyncio.gather(*(one.work() for one in [worker(api, expiry_s=0.0) for _ in range(3)] for _ in range(3)))
        while (await status(api, job))["status"] != "done":
            await worker(api, expiry_s=-1.0).work()
            one = worker(api, expiry_s=0.0)
            await one.work()
            await one.work()
        done = await status(api, job)
        assert (done["lines"], done["written"], done["skipped"]) == (12, 12, 0)


async def test_a_job_of_a_living_gateway_is_left_to_it(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        job = await start(api, lines(films(4)))
        begun, go_on = asyncio.Event(), asyncio.Event()
        ask = api.service.graph.retriever

        async def slow(message: Any, deadline: float) -> Any:
            if isinstance(message, messages.Write):
                begun.set()
                await go_on.wait()
            return await ask(message, deadline)

        api.service.graph = type(api.service.graph)(api.service.graph.embedder, slow, None, {})
        working = asyncio.create_task(worker(api).work())
        await begun.wait()
        other = worker(api)
        assert not await other.work()
        assert not await other.work()
        go_on.set()
        assert await working
        assert (await status(api, job))["status"] == "done"


async def test_a_cancelled_import_stops_and_keeps_what_it_wrote(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        job = await start(api, lines(films(7)))
        ask = api.service.graph.retriever
        writes = 0

        async def cancelling(message: Any, deadline: float) -> Any:
            nonlocal writes
            if isinstance(message, messages.Write):
                writes += 1
                if writes == 2:
                    assert (await api("DELETE", f"/v1/imports/{job['id']}")).json()["status"] == "cancelled"
            return await ask(message, deadline)

        api.service.graph = type(api.service.graph)(api.service.graph.embedder, cancelling, None, {})
        assert await worker(api).work()
        assert writes == 2
        over = await status(api, job)
        assert (over["status"], over["written"]) == ("cancelled", 3)
        assert await title(api, "line-6") is None
        assert (await api("DELETE", f"/v1/imports/{job['id']}")).json()["status"] == "cancelled"
        assert not await worker(api).work()


async def test_an_outage_is_told_logged_once_and_waited_for(bent: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    async with bent() as api:
        job = await start(api, lines(films(2)))
        ask = api.service.graph.retriever
        full, tries = True, 0

        async def failing(message: Any, deadline: float) -> Any:
            nonlocal tries
            if full and isinstance(message, messages.Write):
                tries += 1
                raise IndexUnavailableError("the disk is full: free some space")
            return await ask(message, deadline)

        api.service.graph = type(api.service.graph)(api.service.graph.embedder, failing, None, {})
        one = worker(api, idle_s=0.01)
        one.start()
        await until_async(lambda: tries > 3)
        assert ((await status(api, job))["status"], (await status(api, job))["trouble"]) == ("running", "the disk is full: free some space")
        await one.stop()
        assert [line for line in caplog.messages if "imports wait" in line] == ["imports wait: the disk is full: free some space"]
        full = False
        assert await one.work()
        assert ((await status(api, job))["status"], (await status(api, job))["trouble"]) == ("done", None)


async def test_a_body_that_ends_early_leaves_no_job(bent: Callable[..., Any]) -> None:
    async with bent(serving={"bulk": {"stall_s": 0.2}}) as api:

        async def stalling() -> AsyncIterator[bytes]:
            yield lines(films(4))
            await asyncio.Event().wait()

        assert error(await api("POST", "/v1/imports", content=stalling(), headers=LINES)) == (408, "late_body")
        assert (await api.get("/v1/imports")).json()["imports"] == []


async def test_a_job_whose_lines_come_no_more_is_forgotten(bent: Callable[..., Any]) -> None:
    """The gateway that received them died, so it could not tidy up."""
    async with bent(serving={"bulk": {"stall_s": 0.01}, "imports": {"open": 1}}) as api:
        await api.service.retrieve(messages.StartImport("body", 1), api.service.new_context())
        one = worker(api, expiry_s=0.0)
        full = await api("POST", "/v1/imports", content=lines(films(1)), headers=LINES)
        assert error(full) == (503, "overloaded")
        assert "serving.imports.open" in full.json()["message"]

        async def gone() -> bool:
            await one.work()
            return (await api.get("/v1/imports")).json()["imports"] == []

        while not await gone():
            pass
        assert (await start(api, lines(films(1))))["status"] == "queued"


async def test_an_import_above_the_limit_leaves_nothing(bent: Callable[..., Any]) -> None:
    async with bent(serving={"imports": {"max_bytes": 1024}}) as api:
        response = await api("POST", "/v1/imports", content=lines(films(200)), headers=LINES)
        assert error(response) == (413, "too_large")
        assert "serving.imports.max_bytes" in response.json()["message"]
        assert (await api.get("/v1/imports")).json()["imports"] == []


async def test_unknown_imports_and_other_bodies(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        for method in ("GET", "DELETE"):
            assert error(await api(method, "/v1/imports/nope")) == (404, "not_found")
        assert error(await api("POST", "/v1/imports", content=b"x", headers={"content-type": "text/csv"})) == (
            415,
            "unsupported_media_type",
        )


async def test_without_an_index_there_is_no_import(bent: Callable[..., Any]) -> None:
    async with bent(films=0) as api:
        assert error(await api("POST", "/v1/imports", content=lines(films(1)), headers=LINES)) == (503, "index_absent")


async def test_a_gateway_works_on_its_own_and_after_a_restart(bent: Callable[..., Any]) -> None:
    async with bent() as api:
        job = await start(api, lines(films(5)))
        running = worker(api, idle_s=0.05)
        running.start()
        while (await status(api, job))["status"] != "done":
            pass
        await running.stop()
        # The jobs lie beside the index: an app that starts anew knows them.
        async with connected(api.service) as again:
            assert (await status(again, job))["written"] == 5
