"""The web page, the page of the API's documentation, and their files. Neither loads anything from another host."""

import os
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parents[1] / "static"
SWAGGER = Path(fastapi_offline.__file__).parent / "static"

_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
# Swagger UI sets styles on its elements. It may run no script but those two files.
_DOCS_POLICY = f"{_POLICY}; style-src 'self' 'unsafe-inline'"


class PageFiles(StaticFiles):
    """The page's files, asked for anew at each visit: an upgrade must never mix old and new modules."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


router = APIRouter()


@router.get("/", include_in_schema=False, name="page")
async def page() -> Response:
    return _html("index.html", _POLICY)


@router.get("/docs", include_in_schema=False, name="docs")
async def docs() -> Response:
    return _html("docs.html", _DOCS_POLICY)


def _html(name: str, policy: str) -> Response:
    body = (STATIC / name).read_bytes()
    return Response(body, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})
