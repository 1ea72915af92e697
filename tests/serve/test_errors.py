"""Every error of ours has its place: a status for those that reach clients, and a way over a hop and back."""

import copy
import json
import re
from pathlib import Path

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import serve.graph.gateway
from matinee import errors
from matinee.errors import AmbiguousTitleError, FilterError, MatineeError
from matinee.settings.serving import ServingSettings
from serve.api.auth import ApiKeys, Caller
from serve.api.errors import envelope, explain, outcome
from serve.errors import CODES, STATUS, RequestError, UnavailableError

OPERATOR = Caller(ApiKeys(ServingSettings()))


def classes() -> list[type[MatineeError]]:
    found = [MatineeError]
    for parent in found:
        found += [child for child in parent.__subclasses__() if child.__module__.startswith(("matinee.errors", "serve.errors"))]
    return found


def make(kind: type[MatineeError]) -> MatineeError:
    if kind is RequestError:
        return RequestError(422, "what is wrong")
    if kind is FilterError:
        return FilterError("", "what is wrong")
    return AmbiguousTitleError("what is wrong", [{"id": "a"}]) if kind is AmbiguousTitleError else kind("what is wrong")


# All but `RequestError`, which the gateway raises for its own client only.
@pytest.mark.parametrize("kind", [kind for kind in classes() if kind is not RequestError])
def test_an_error_survives_a_hop(kind: type[MatineeError]) -> None:
    error = make(kind)
    # Taken apart and put together (`__reduce_ex__`) as for a hop.
    arrived = copy.deepcopy(error)
    assert (type(arrived), str(arrived), arrived.code) == (kind, str(error), error.code)
    assert getattr(arrived, "candidates", None) == getattr(error, "candidates", None)


@pytest.mark.parametrize("kind", classes())
def test_what_clients_are_told(kind: type[MatineeError]) -> None:
    error = make(kind)
    response = explain(error, "id-1", OPERATOR, retry_after_s=3)
    if response is None:
        assert error.code in {"error", "settings", "source"}, "an error that can reach a client needs a status"
        assert outcome(error, 500) == "internal", "as the envelope says, and as the objectives count it"
        return
    assert outcome(error, response.status_code) == error.code
    body = json.loads(bytes(response.body))
    assert (body["code"], body["message"], body["request_id"]) == (error.code, str(error), "id-1")
    assert response.headers.get("retry-after") == ("3" if response.status_code == 503 else None)
    assert ("candidates" in body) is (kind is AmbiguousTitleError)


def test_statuses_are_of_codes_that_exist() -> None:
    assert set(STATUS) <= {kind.code for kind in classes()}
    late = (errors.DeadlineError, errors.OverloadedError, UnavailableError, errors.ModelServerError, errors.ModelError)
    assert late == serve.graph.gateway.LATE


@pytest.mark.parametrize("bug", [KeyError("x"), RuntimeError("x"), ValueError("x"), RecursionError()])
def test_bugs_are_not_explained(bug: Exception) -> None:
    assert explain(bug, "id", OPERATOR, retry_after_s=1) is None


def test_the_headers_of_an_error() -> None:
    assert envelope(401, "unauthorized", "m", "id").headers["www-authenticate"] == "Bearer"
    assert envelope(405, "method_not_allowed", "m", "id", allow="GET").headers["allow"] == "GET"
    response = explain(HTTPException(405, headers={"Allow": "POST"}), "id", OPERATOR, retry_after_s=1)
    assert response is not None
    assert response.headers["allow"] == "POST"


def problems(*found: dict[str, object]) -> dict[str, str]:
    response = explain(RequestValidationError(found), "id", OPERATOR, retry_after_s=1)
    assert response is not None
    assert response.status_code == 422
    return dict(json.loads(bytes(response.body)))


def test_many_problems_are_cut_to_five_and_names_to_a_hundred_characters() -> None:
    message = problems(*({"type": "missing", "loc": ("body", f"{n}" * 300), "msg": "Field required"} for n in range(9)))["message"]
    assert message.count("Field required") == 5
    assert len(message) < 700


def test_a_name_that_can_not_be_encoded_is_escaped() -> None:
    assert problems({"type": "missing", "loc": ("body", "\ud800"), "msg": "no"})["message"] == "\\ud800: no"
    response = explain(errors.FilterError("\ud800", "no attribute"), "id", OPERATOR, retry_after_s=1)
    assert response is not None
    assert json.loads(bytes(response.body))["message"] == "filter.\\ud800: no attribute"


def test_what_was_sent_is_not_echoed() -> None:
    message = problems({"type": "string_type", "loc": ("body", "text"), "msg": "Input should be a valid string", "input": "secret"})[
        "message"
    ]
    assert message == "text: Input should be a valid string"


def test_the_documented_codes_are_those_of_the_api() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE)
    known = {(status, code) for code, status in STATUS.items()} | set(CODES.items()) | {(500, "internal")}
    assert sorted((int(status), code) for status, code in rows) == sorted(known)
