"""Items in streams: as many as come, a line each, written as they arrive."""

from collections.abc import AsyncIterator
from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from matinee.index.imports import ImportJob
from serve.api import schemas
from serve.api.auth import Caller
from serve.api.redact import HIDDEN
from serve.api.responses import ERRORS, NDJSON, caller, json_response, needs, takes_lines
from serve.api.served_catalogues import catalogue
from serve.errors import RequestError, problems
from serve.graph.import_jobs import LOST
from serve.graph.item_lines import Counts, Line, split, write_lines

_LINES = (NDJSON, "application/ndjson", "application/jsonl", "application/jsonlines")


_MOST_JSON = 8192
"""Bytes of a body that only names a URI."""


router = APIRouter(prefix="/v1", tags=["catalogue"], responses=ERRORS)


@router.post(
    "/items:batch",
    response_model=schemas.UploadResponse,
    name="put_item_lines",
    openapi_extra=needs("write") | takes_lines("an item a line, as PUT /v1/items takes it"),
)
async def put_item_lines(request: Request) -> Response:
    """Add or replace any number of items, a line of JSON each. Lines that can't be used are rejected, the others are written."""
    require_lines(request)
    counts, served = Counts(), catalogue(request)
    with served.bulk.hold(served.name):
        await write_lines(lines_of(request, counts), served.writes, served.bulk, served.max_line_bytes, counts)
    return json_response(request, **(asdict(counts) | {"rejects": [reject.model_dump() for reject in counts.rejects]}))


@router.post(
    "/imports",
    status_code=202,
    response_model=schemas.ImportResponse,
    name="start_import",
    openapi_extra=needs("write") | takes_lines("an item a line, as PUT /v1/items takes it", schemas.RemoteImportRequest),
)
async def start_import(request: Request) -> Response:
    """Take any number of items, a line of JSON each, and write them in the background. The job goes on whatever restarts.

    The lines are the body. Or they lie at a URI, which a body of JSON names: that needs the scope admin, and a URI below a prefix of
    `serving.imports.sources`.
    """
    served = catalogue(request)
    if _media_type(request) == "application/json":
        uri = await _uri(request)
        lines, source = split(served.remote.read(uri), served.max_line_bytes), uri.partition("?")[0]
    else:
        require_lines(request)
        lines, source = lines_of(request, Counts()), "body"
    with served.bulk.hold(served.name):
        job = await served.imports.receive(lines, source)
    return json_response(request, 202, **import_fields(job, caller(request)))


@router.get("/imports", response_model=schemas.ImportsResponse, name="list_imports", openapi_extra=needs("write"))
async def list_imports(request: Request) -> Response:
    """The imports that are open, and the last ones that are over; oldest first. `build` is an ingest that is under way."""
    imports = catalogue(request).imports
    jobs, build = await imports.jobs(), await imports.build()
    shown = [import_fields(job, caller(request)) for job in jobs]
    return json_response(request, imports=shown, build=None if build is None else build.state().model_dump())


@router.get("/imports/{id}", response_model=schemas.ImportResponse, name="get_import", openapi_extra=needs("write"))
async def get_import(id: str, request: Request) -> Response:
    """How far an import is, and which lines it could not use."""
    return json_response(request, **import_fields(await catalogue(request).imports.job(id), caller(request)))


@router.delete("/imports/{id}", response_model=schemas.ImportResponse, name="cancel_import", openapi_extra=needs("write"))
async def cancel_import(id: str, request: Request) -> Response:
    """Cancel an import. What it has written stays; one that is over stays as it is."""
    return json_response(request, **import_fields(await catalogue(request).imports.cancel(id), caller(request)))


def import_fields(job: ImportJob, sender: Caller) -> dict[str, object]:
    """A job as `sender` may see it."""
    fields = job.state().model_dump()
    if job.trouble not in (None, LOST) and not sender.may("admin"):
        fields["trouble"] = HIDDEN
    return fields


def require_lines(request: Request) -> None:
    """Raises where the body is not said to be lines of JSON."""
    if _media_type(request) not in _LINES:
        raise HTTPException(415, f"send an item a line, as JSON, with the header Content-Type: {NDJSON}")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _uri(request: Request) -> str:
    """The URI that a body names. Raises where it does not, or where its sender may not."""
    if not caller(request).may("admin"):
        raise RequestError(403, "an import from a URI needs a key with the scope 'admin': send the lines themselves")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_JSON:
            raise RequestError(413, f"a body that names a URI has at most {_MOST_JSON} bytes; lines have the Content-Type {NDJSON}")
    try:
        return schemas.RemoteImportRequest.model_validate_json(bytes(body)).uri
    except ValidationError as error:
        raise RequestError(422, problems(error.errors(include_url=False, include_input=False))) from None


async def lines_of(request: Request, counts: Counts) -> AsyncIterator[Line]:
    """The lines of a request's body as they arrive. Raises where it is cut off: half a line is never used."""
    try:
        async for line in split(request.stream(), catalogue(request).max_line_bytes):
            yield line
    except ClientDisconnect:
        message = f"the body was cut off; {counts.written} items of its first {counts.lines} lines were written"
        raise HTTPException(400, message) from None
