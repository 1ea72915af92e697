"""The web page and the page of the documentation."""

import re

from tests.serve.api_client import Api


async def test_page_and_documents(api: Api) -> None:
    page = await api.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    docs = await api.get("/docs")
    assert "default-src 'self'" in docs.headers["content-security-policy"]
    assert "script-src" not in docs.headers["content-security-policy"], "scripts have the default: files of this server"
    assert "<script>" not in docs.text
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text + docs.text):
        assert not name.startswith(("/", "http")), "relative, for a path prefix"
        if name != "#":
            assert (await api.get(f"/{name}")).status_code == 200
    assert (await api.get("/openapi.json")).json()["openapi"].startswith("3.1")
