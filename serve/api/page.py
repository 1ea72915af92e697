"""The web page and its files."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parents[1] / "static"

_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"


class PageFiles(StaticFiles):
    """The page's files, asked for anew at each visit: an upgrade must never mix old and new modules."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False, name="page")
    async def page() -> Response:
        body = (STATIC / "index.html").read_bytes()
        return Response(body, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})

    return router
