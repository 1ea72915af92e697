"""What keys below admin are told of the server's faults and folders: a fixed sentence, and the end of a path."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from matinee.errors import IndexLockedError, IndexUnavailableError, MatineeError, NotFoundError
from matinee.index.imports import Status, new_job
from matinee.settings.serving import ServingSettings
from serve.api.auth import ApiKeys, Caller, new_key
from serve.api.redact import HIDDEN, PUBLIC, is_hidden, public_message, public_report
from serve.api.uploads import import_fields
from serve.errors import STATUS, EncoderReplacedError, ImportChangedError, SwitchedOffError
from serve.graph.import_jobs import LOST
from serve.graph.item_lines import PartlyDoneError
from tests.serve.api_client import Api, error

KINDS = [kind for kind in MatineeError.__subclasses__() if kind.code in PUBLIC]
SECRETS = ("/srv", "secret", "10.0.0.7", "max", "6333")
"""Parts of what no reader may see."""
INSIDE = (
    "/srv/secret/x",
    "uri:/home/max/x",
    "x:/srv/secret",
    "-/srv/secret",
    "@/srv/secret",
    "HTTP://10.0.0.7:6333",
    "10.0.0.7:6333",
    "abfsssssssss://secret/x",
    "/docs/secret",
    "/v1/secret",
    "/srv/Index of max/secret folder",
    "~max/x",
    "\\\\srv\\secret",
)


@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_of_the_server_says_nothing_of_its_inside(kind: type[MatineeError], place: str) -> None:
    for failure in (kind(place), PartlyDoneError(kind(place), "7 items were written")):
        assert not any(secret in public_message(failure) for secret in SECRETS)


@pytest.mark.parametrize("kind", [SwitchedOffError, ImportChangedError, EncoderReplacedError])
def test_an_error_that_says_what_helps_is_shown_whole(kind: type[MatineeError]) -> None:
    error = kind("what is so, and what helps")
    assert public_message(error) == "what is so, and what helps"
    assert public_message(PartlyDoneError(error, "7 items were written")) == "what is so, and what helps; 7 items were written"
    assert not is_hidden(error)
    assert not is_hidden(PartlyDoneError(error, ""))


async def test_no_reader_is_told_to_try_what_can_not_work(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    _, entry = new_key("admin", ("admin",))
    reader, reader_entry = new_key("reader", ("read", "write"))
    headers = {"authorization": f"Bearer {reader}"}
    keys = {"keys": [entry.model_dump(), reader_entry.model_dump()]}
    async with bent(films=1, parts={"enhancer": None}, serving=keys) as api:
        described = await api.post("/v1/describe", {"item": {"title": "x"}}, headers=headers)
        assert (described.status_code, described.json()["message"]) == (503, "the enhancer is switched off here (enhancer.enabled)")
        real = api.service.graph.embedder

        async def other(unit: Any, deadline: float) -> Any:
            made = await real(unit, deadline)
            return type(made)("f" * 64, made.vectors)

        api.service.graph = type(api.service.graph)(other, api.service.graph.retriever, None, api.service.graph.infos)
        for response in (
            await api.post("/v1/search", {"text": "x"}, headers=headers),
            await api.put({"title": "x"}, headers=headers),
        ):
            assert error(response) == (503, "fingerprint_mismatch")
            assert "`matinee ingest`" in response.json()["message"]


def test_errors_that_are_about_the_request_are_shown_whole() -> None:
    """A code of a response is of one of the two kinds: a new one has to be thought of here."""
    about_requests = {"invalid", "ambiguous_title", "not_found", "conflict", "events_off", "overloaded", "deadline"}
    assert about_requests | PUBLIC.keys() == STATUS.keys()
    assert not about_requests & PUBLIC.keys()
    assert public_message(NotFoundError("no item has the id 'a/b'")) == "no item has the id 'a/b'"
    broken = PartlyDoneError(IndexUnavailableError("the disk of /srv is full"), "7 items were written")
    assert public_message(broken) == f"{PUBLIC['index_unavailable']} ({HIDDEN}); 7 items were written"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/u/.matinee/models/My model", ".../My model"),
        ("~/models/x/", ".../x"),
        ("s3://bucket/models/abc", ".../abc"),
        ("hub:ibm/granite", "hub:ibm/granite"),
        ("artifact:1d0c", "artifact:1d0c"),
        (None, None),
    ],
)
def test_a_report_shows_of_a_path_its_end(value: str | None, shown: str | None) -> None:
    report = {"embedder": {"model": value, "list": [value], "n": 1}, "degraded": []}
    assert public_report(report) == {"embedder": {"model": shown, "list": [shown], "n": 1}, "degraded": []}


@pytest.mark.parametrize("place", INSIDE)
def test_a_report_names_the_part_that_is_degraded_and_no_more(place: str) -> None:
    report = {"enhancer": {"trouble": place}, "index_trouble": place, "degraded": [f"enhancer: {place}"], "embedder": {"trouble": None}}
    shown = public_report(report)
    assert not any(secret in str(shown) for secret in SECRETS)
    assert shown["degraded"] == [f"enhancer: {HIDDEN}"]
    assert shown["embedder"] == {"trouble": None}


@pytest.mark.parametrize("status", ["running", "cancelled"])
def test_who_may_write_does_not_read_why_an_import_waits(status: Status) -> None:
    keys = [new_key("writer", ("write",))[1], new_key("admin", ("admin",))[1]]
    callers = [Caller(ApiKeys(ServingSettings(keys=tuple(keys))), key) for key in keys]
    job = new_job("body", 1).model_copy(update={"status": status, "trouble": "cannot write /srv/secret"})
    assert [import_fields(job, sender)["trouble"] for sender in callers] == [HIDDEN, "cannot write /srv/secret"]
    lost = job.model_copy(update={"trouble": LOST})
    assert [import_fields(lost, sender)["trouble"] for sender in callers] == [LOST, LOST]


async def test_only_admin_sees_paths(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    place = "/srv/secret/index"
    reader, reader_entry = new_key("reader", ("read",))
    admin, admin_entry = new_key("admin", ("admin",))

    async def info() -> dict[str, Any]:
        return {"model": "/srv/secret/models/mine", "trouble": f"cannot read {place}"}

    async def locked(message: Any, deadline: float) -> Any:
        raise IndexLockedError(f"{place} is open in another process")

    keys = {"keys": [reader_entry.model_dump(), admin_entry.model_dump()]}
    async with bent(parts={"retriever": locked, "infos": {"embedder": info}}, serving=keys) as api:
        for key, sees in ((reader, False), (admin, True)):
            headers = {"authorization": f"Bearer {key}"}
            report = await api.get("/v1/info", headers=headers)
            assert report.status_code == 200
            refused = await api.get("/v1/items", headers=headers)
            assert error(refused) == (503, "index_locked")
            for text in (report.text, refused.text):
                assert ("/srv" in text) is sees
        assert report.json()["embedder"]["model"] == "/srv/secret/models/mine"
        assert "/srv" not in (await api.get("/readyz")).text


def logged(caplog: pytest.LogCaptureFixture) -> dict[str, list[str]]:
    """The reasons in the lines of requests, by the request's id."""
    lines = [getattr(record, "fields", {}) for record in caplog.records if record.levelname == "WARNING"]
    return {line["request_id"]: line["reasons"] for line in lines if "reasons" in line}


async def test_what_an_answer_hides_is_in_the_log(
    bent: Callable[..., AbstractAsyncContextManager[Api]], caplog: pytest.LogCaptureFixture
) -> None:
    reason = "the disk is full: free some space for /srv/secret"
    key, entry = new_key("shop", ("read", "write"))

    async def full(message: Any, deadline: float) -> Any:
        raise IndexUnavailableError(reason)

    ask: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v1/items", {}),
        ("PUT", "/v1/items", {"json": {"items": [{"title": "x"}]}}),
        ("POST", "/v1/recommend:batch", {"json": {"requests": [{"text": "x"}, {"text": "y"}]}}),
        ("POST", "/v1/items:batch", {"content": b'{"title": "x"}\n', "headers": {"content-type": "application/x-ndjson"}}),
        ("GET", "/readyz", {}),
    ]
    async with bent(films=0, parts={"retriever": full}, serving={"keys": [entry.model_dump()]}) as api:
        for number, (method, path, options) in enumerate(ask):
            headers = {"authorization": f"Bearer {key}", "x-request-id": f"r-{number}"} | options.pop("headers", {})
            response = await api(method, path, headers=headers, **options)
            assert HIDDEN in response.text
            assert "/srv" not in response.text
            [told] = logged(caplog)[f"r-{number}"]
            assert told.startswith(reason), path
        for _ in range(3):
            report = (await api.get("/v1/info", headers={"authorization": f"Bearer {key}"})).json()
            assert (report["index_trouble"], report["degraded"]) == (HIDDEN, [f"index: {HIDDEN}"])
    assert [record.getMessage() for record in caplog.records if "degraded" in record.getMessage()] == [f"degraded: index: {reason}"]


async def test_that_the_index_is_of_another_embedder_is_shown_to_all(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    async def other() -> dict[str, Any]:
        return {"model": "m", "fingerprint": "f" * 64}

    async with bent(films=1, parts={"infos": {"embedder": other}}, serving={"host": "0.0.0.0"}) as api:
        [line] = (await api.get("/v1/info")).json()["degraded"]
    assert line.endswith("text search is refused until a new ingest")


async def test_who_serves_on_loopback_without_keys_is_admin(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    async def info() -> dict[str, Any]:
        return {"model": "/srv/models/mine"}

    async with bent(films=1, parts={"infos": {"embedder": info}}) as api:
        assert (await api.get("/v1/info")).json()["embedder"]["model"] == "/srv/models/mine"
    async with bent(films=1, parts={"infos": {"embedder": info}}, serving={"host": "0.0.0.0"}) as api:
        assert (await api.get("/v1/info")).json()["embedder"]["model"] == ".../mine"
