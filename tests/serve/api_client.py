"""An HTTP client of an app in this process, for tests: what it is answered is held against what holds for every answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

JSON = {"content-type": "application/json"}


@dataclass
class Api:
    """An HTTP client of one app. Every answer that it gets is held against the promises that hold for all of them."""

    client: httpx.AsyncClient
    service: Any
    enhancer: Any

    async def __call__(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        response = await self.client.request(method, path, **kwargs)
        promised(response, head=method == "HEAD")
        return response

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self("GET", path, **kwargs)

    async def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        return await self("POST", path, json=body, **kwargs)

    async def put(self, *items: dict[str, Any], **kwargs: Any) -> httpx.Response:
        return await self("PUT", "/v1/items", json={"items": items}, **kwargs)

    async def raw(self, path: str, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self("POST", path, content=content, headers=JSON if headers is None else headers)


def promised(response: httpx.Response, *, head: bool = False) -> None:
    """Ids, headers, and for errors exactly the envelope."""
    headers = response.headers
    assert headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert response.status_code != 500, response.text
    if response.status_code == 503 and "ready" not in response.text:
        assert int(headers["retry-after"]) >= 1
    if response.status_code >= 400 and not head and "ready" not in response.text:
        assert headers["content-type"] == "application/json"
        body = response.json()
        assert set(body) == {"code", "message", "request_id"} | ({"candidates"} if body["code"] == "ambiguous_title" else set())
        assert body["request_id"] == headers["x-request-id"]
        assert len(body["message"]) < 5000
        assert "Traceback" not in response.text
        assert "site-packages" not in response.text


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@asynccontextmanager
async def connected(service: Any, enhancer: Any = None) -> AsyncIterator[Api]:
    """An `Api` of `service`; what the app raises comes through, so that no bug hides behind a 500."""
    from serve.api.app import create_app
    from serve.api.auth import ApiKeys

    app = create_app(service, ApiKeys(service.settings.serving))
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Api(client, service, enhancer)
