"""Log lines: one for each request, as JSON or text, with ids and codes, and with texts only where the settings say so."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from matinee.settings.serving import ServingSettings
from serve.api.auth import hash_key
from serve.telemetry import logs


@pytest.fixture
def lines() -> Iterator[Any]:
    """Configures the logging of this process as a replica does; gives the lines so far, and undoes it at the end."""
    names = [*logs.OURS, *logs.THEIRS]
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate, logging.getLogger(name).level) for name in names}
    stream = io.StringIO()

    def configured(**settings: Any) -> list[str]:
        if settings:
            logs.configure(ServingSettings.model_validate(settings), "gateway", stream)
        # What runs beside the test may have something to say too.
        return [line for line in stream.getvalue().splitlines() if "request" in line or "serve.x" in line]

    yield configured
    for name, (handlers, propagate, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


async def test_a_request_is_one_json_line_without_its_text(bent: Any, lines: Any) -> None:
    serving = {"keys": [{"name": "shop", "sha256": hash_key("secret-key"), "scopes": ["read"]}]}
    async with bent(serving=serving) as api:
        lines(log_format="json", log_level="INFO")
        headers = {"authorization": "Bearer secret-key", "x-request-id": "r-1"}
        await api.post("/v1/search", {"text": "a lighthouse"}, headers=headers)
        await api.post("/v1/search", {"text": "a lighthouse", "k": 0}, headers=headers)
        await api.get("/livez")
    found, refused = (json.loads(line) for line in lines())
    assert found["stages"].keys() == {"embed", "retrieve"}
    assert found["ms"] >= 0
    assert {key: found[key] for key in ("level", "part", "request_id", "endpoint", "status", "outcome", "key")} == {
        "level": "INFO",
        "part": "gateway",
        "request_id": "r-1",
        "endpoint": "search",
        "status": 200,
        "outcome": "ok",
        "key": "shop",
    }
    assert refused["outcome"] == "invalid"
    told = "\n".join(lines())
    assert "lighthouse" not in told
    assert "secret" not in told


async def test_with_log_texts_the_text_is_there(bent: Any, lines: Any) -> None:
    async with bent(serving={"log_texts": True}) as api:
        lines(log_format="json", log_level="INFO")
        await api.post("/v1/search", {"text": "a lighthouse"})
    assert json.loads(lines()[0])["text"] == "a lighthouse"


async def test_at_warning_only_failures_are_told(bent: Any, lines: Any) -> None:
    async with bent(films=0) as api:
        lines(log_format="text", log_level="WARNING")
        await api.get("/v1/facets")
        await api.get("/v1/nothing")
    [line] = lines()
    assert "WARNING gateway request" in line
    assert "endpoint=facets" in line
    assert "outcome=index_absent" in line


def test_a_traceback_is_part_of_its_json_line(lines: Any) -> None:
    lines(log_format="json", log_level="ERROR")
    log = logging.getLogger("serve.x")
    log.warning("not told")
    try:
        raise KeyError("bug")
    except KeyError:
        log.exception("it %s", "broke")
    [line] = lines()
    told = json.loads(line)
    assert told["message"] == "it broke"
    assert "Traceback" in told["exception"]


async def test_a_bug_is_told_by_its_frames_and_request_and_not_by_what_the_user_wrote(bent: Any, lines: Any) -> None:
    async def broken(unit: Any, deadline: float) -> Any:
        try:
            raise KeyError(wrote)
        except KeyError as error:
            raise ValueError(wrote) from error

    wrote = "a lighthouse"
    for texts, told in ((False, 0), (True, 2)):
        async with bent(parts={"retriever": broken}) as api:
            lines(log_format="json", log_level="ERROR", log_texts=texts)
            answer = await api.client.post("/v1/search", json={"text": wrote}, headers={"x-request-id": "r-7"})
        assert (answer.status_code, answer.json()["request_id"]) == (500, "r-7")
        line = lines()[-1]
        failure = json.loads(line)
        assert (failure["message"], failure["request_id"], failure["endpoint"]) == ("request failed", "r-7", "search")
        assert failure["exception"].index("KeyError") < failure["exception"].index("ValueError")
        assert ", in broken" in failure["exception"]
        assert line.count(wrote) == told


def test_text_values_stay_on_one_line(lines: Any) -> None:
    lines(log_format="text", log_level="INFO")
    logs.request(
        logging.getLogger("serve.api.middleware"), 200, {"endpoint": "search", "outcome": "ok", "text": "two\nlines", "degraded": []}
    )
    [line] = lines()
    assert line.endswith(r'request endpoint=search outcome=ok text="two\nlines"')


def test_a_full_server_does_not_flood_the_log(lines: Any) -> None:
    lines(log_format="text", log_level="WARNING")
    logs.request(logging.getLogger("serve.api.middleware"), 503, {"endpoint": "none", "outcome": "overloaded"})
    assert lines() == []
