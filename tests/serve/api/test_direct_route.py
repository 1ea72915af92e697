"""Routes that take the request alone, beside those whose parameters the framework reads."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import Response

from serve.api.direct_route import DirectRoute

router = APIRouter(route_class=DirectRoute)


@router.get("/items/{id}")
async def item(request: Request) -> Response:
    handled = "fastapi_inner_astack" in request.scope
    return Response(f"{request.path_params['id']} {request.scope['route'].name} {handled}")


@router.get("/count")
async def count(request: Request, n: int) -> Response:
    return Response(f"{n} {'fastapi_inner_astack' in request.scope}")


def client() -> TestClient:
    app = FastAPI()
    app.router.routes.extend(router.routes)
    return TestClient(app)


def test_a_route_that_takes_the_request_alone_is_called_by_the_router() -> None:
    assert client().get("/items/a b").text == "a b item False"
    assert client().get("/count?n=3").text == "3 True"
    assert client().get("/count?n=x").status_code == 422


def test_another_method_is_refused_as_everywhere() -> None:
    refused = client().post("/items/a")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")


def test_the_document_has_both() -> None:
    paths: dict[str, Any] = client().get("/openapi.json").json()["paths"]
    assert paths.keys() == {"/items/{id}", "/count"}
