"""Large JSON bodies are read in a thread of their own, and answered as small ones are."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import AfterValidator, BaseModel, ConfigDict
from starlette.responses import Response

from serve.api import large_bodies
from serve.api.large_bodies import InvalidBodyError, LargeBodyRoute
from serve.graph.requests import ON_LOOP_BYTES
from tests.serve.api_client import Api

LARGE = "x" * ON_LOOP_BYTES


def in_thread(text: str) -> str:
    threads.append(threading.current_thread().name)
    if text == "wrong":
        raise ValueError("is wrong")
    return text


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, AfterValidator(in_thread)]
    padding: str = ""


threads: list[str] = []


def client_of(route_class: type[APIRoute]) -> TestClient:
    """An app with two routes, whose loop is the thread `loop`."""
    router = APIRouter(route_class=route_class)

    @router.post("/model")
    async def model(body: Body) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return {"text": body.text, "length": len(body.padding)}

    @router.patch("/object")
    async def anything(body: dict[str, Any]) -> dict[str, Any]:
        return {"keys": sorted(body)}

    app = FastAPI()
    app.include_router(router)

    @app.exception_handler(InvalidBodyError)
    async def explain(request: Request, error: InvalidBodyError) -> Response:
        return await request_validation_exception_handler(request, RequestValidationError(error.errors))

    # FastAPI's own error for bytes that are no UTF-8 can't be written.
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(LargeBodyRoute) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[TestClient]:
    with client_of(APIRoute) as client:
        yield client


@pytest.mark.parametrize(("padding", "elsewhere"), [("", False), (LARGE, True)])
def test_only_a_large_body_is_validated_in_another_thread(client: TestClient, padding: str, elsewhere: bool) -> None:
    threads.clear()
    assert client.post("/model", json={"text": "a", "padding": padding}).json() == {"text": "a", "length": len(padding)}
    validated, handled = threads
    assert (validated != handled) == elsewhere
    assert validated.startswith("large-body") == elsewhere


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/model", json.dumps({"text": "a", "padding": LARGE})),
        ("POST", "/model", json.dumps({"text": "wrong", "padding": LARGE})),
        ("POST", "/model", json.dumps({"padding": LARGE, "more": 1})),
        ("POST", "/model", json.dumps([LARGE])),
        ("POST", "/model", json.dumps({"text": "a", "padding": LARGE})[:-1]),
        ("POST", "/model", "[" * 2 * ON_LOOP_BYTES),
        ("POST", "/model", b'{"text": "\xff", "padding": "' + LARGE.encode() + b'"}'),
        ("PATCH", "/object", json.dumps({"text": "a", "padding": LARGE})),
        ("PATCH", "/object", json.dumps(LARGE)),
    ],
    ids=["good", "wrong", "missing", "list", "cut off", "deep", "not utf-8", "object", "string"],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json", "text/plain", ""])
def test_the_answer_is_that_of_fastapi(
    client: TestClient, plain: TestClient, method: str, path: str, body: str | bytes, content_type: str
) -> None:
    answers = [
        each.request(method, path, content=body, headers={"Content-Type": content_type} if content_type else {}) for each in (client, plain)
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content


@pytest.mark.asyncio(loop_scope="session")
async def test_no_route_reads_a_large_body_on_the_loop(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Future[Any]:
            read.append(len(args[-1]))
            return super().submit(fn, *args, **options)

    monkeypatch.setattr(large_bodies, "_reader", Counted(1))
    paths = (await api.get("/openapi.json")).json()["paths"]
    operations = [
        (method, path, kind)
        for path, methods in paths.items()
        for method, operation in methods.items()
        for kind in operation.get("requestBody", {}).get("content", {})
        # Of a streamed body, the JSON that may stand in its place is refused above 8 kB.
        if (kind == "application/json" or kind.endswith("+json")) and "x-streamed" not in operation
    ]
    assert len(operations) > 8
    for method, path, kind in operations:
        read.clear()
        body = json.dumps({"padding": LARGE}).encode()
        answer = await api(
            method.upper(),
            path.replace("{id}", "none").replace("/catalogues/{catalogue}/", "/").replace("{catalogue}", "none"),
            content=body,
            headers={"Content-Type": kind},
        )
        assert read == [len(body)], (method, path, answer.text)
        assert answer.status_code in (404, 422)
