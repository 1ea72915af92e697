"""The OpenAPI document: committed, and kept by the app for whatever schemathesis makes up from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from typer.testing import CliRunner

from serve.__main__ import app as command
from serve.api.openapi import document
from tests.waiting import HANG_S

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"
MADE: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_the_command_prints_it() -> None:
    assert CliRunner().invoke(command, ["openapi"]).stdout == document()


def test_every_operation_documents_its_errors() -> None:
    for path, operations in MADE["paths"].items():
        for name, operation in operations.items():
            assert operation.get("description") or operation.get("summary"), path
            if path.startswith("/v1/"):
                assert {"401", "403", "405", "422", "503", "504"} <= set(operation["responses"]), (name, path)


def test_every_route_that_checks_a_key_documents_it() -> None:
    [name] = MADE["components"]["securitySchemes"]
    assert MADE["components"]["securitySchemes"][name]["scheme"] == "bearer"
    for path, operations in MADE["paths"].items():
        for method, operation in operations.items():
            # Or none: a server without keys lets everybody read.
            inner = path.replace("/catalogues/{catalogue}/", "/")
            writes = method in ("put", "patch", "delete") or inner.startswith(("/v1/items:", "/v1/imports", "/v1/index"))
            scope = "feedback" if inner == "/v1/feedback" else "write" if writes else "read"
            if inner.startswith("/v1/catalogues") and method != "get":
                scope = "admin"
            assert operation.get("security", []) == ([{name: [scope]}, {}] if path.startswith("/v1/") else []), path


# Those of a catalogue are the same handlers: its name has tests of its own.
OPERATIONS = [
    (method, path)
    for path, operations in MADE["paths"].items()
    if not path.startswith("/v1/catalogues/{catalogue}/")
    for method in operations
]
# Some rules a JSON schema does not say: no control characters, no blanks, exactly one of three fields, a range that is not empty.
UNSAID = [positive_data_acceptance]


@schemathesis.serializer("application/x-ndjson")
def as_lines(ctx: Any, value: Any) -> dict[str, Any]:
    return {"data": value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")}


def unsaid(method: str, path: str) -> list[Any]:
    """The checks that are not asked of an operation. A stream of lines takes any text, and rejects lines."""
    streamed = MADE["paths"][path][method].get("x-streamed")
    return [*UNSAID, negative_data_rejection] if streamed else UNSAID


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def schema(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of a served app over a few films."""
    home = tmp_path_factory.mktemp("contract")
    make = lambda: local_graph.build_local_graph(home, films=local_graph.demo_films()[:12], enhancer=local_graph.FakeEnhancer())  # noqa: E731
    with local_graph.serve_app(make) as url:
        loaded = schemathesis.openapi.from_url(f"{url}/openapi.json")
        # A thousand recommendations take longer than its default on a busy machine.
        loaded.config.update(request_timeout=HANG_S)
        # A body over the limit is refused by its size, whatever else is wrong with it.
        loaded.config.checks.negative_data_rejection.expected_statuses += ["413", "431"]
        yield loaded


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_at_every_edge_the_answer_is_as_documented(schema: Any, method: str, path: str) -> None:
    """Every limit, type and spelling that the document names, kept and broken once each."""
    operation = schema[path][method]
    generation = schema.config.generation_for(operation=operation)
    cases = list(schema.iter_coverage_cases(operation, generation_modes=MODES, generation_config=generation))
    assert cases
    excluded = unsaid(method, path)
    for case in cases:
        case.call_and_validate(excluded_checks=excluded)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_sent_the_answer_is_as_documented(schema: Any, method: str, path: str, mode: GenerationMode) -> None:
    """Requests that the document allows, or forbids, as Hypothesis makes them up."""

    excluded = unsaid(method, path)

    @hypothesis.settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=schema[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(excluded_checks=excluded)

    try:
        check()
    except hypothesis.errors.Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE, "an operation that takes nothing can't be asked wrongly"
