"""The HTTP API as an ASGI app: its routes, middleware, error responses and documentation. Each resource has a module of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from matinee.settings.tree import CATALOGUE_NAME
from serve.api import catalogues, feedback, health, items, models, page, ranking, uploads
from serve.api.admission import API, BELOW, CATALOGUES, Admission
from serve.api.auth import ApiKeys
from serve.api.errors import explain, outcome
from serve.api.middleware import RequestMiddleware
from serve.api.responses import API_KEY, error_schemas, needed_scopes, streamed_routes
from serve.api.served_catalogues import ServedCatalogues
from serve.api.unknown_routes import UnknownRoutes
from serve.graph.bulk import Bulk
from serve.graph.clock_skew import ClockWatch
from serve.graph.concurrency import Sharing
from serve.graph.gateway import Gateway
from serve.graph.remote_source import RemoteSource
from serve.telemetry.tracing import Tracing


def create_app(gateway: Gateway, keys: ApiKeys, *, names_requests: bool = True) -> FastAPI:
    """The ASGI app of one gateway, whose graph stands on Ray handles or, in tests, on parts in the same process."""
    settings = gateway.settings
    clocks = ClockWatch(gateway.graph.clocks, gateway.metrics)
    sharing = Sharing()
    bulk = Bulk(settings.serving.bulk, settings.serving.deadline_s, sharing)
    served, tracing = ServedCatalogues(gateway, bulk, sharing), Tracing(settings.tracing, "gateway")
    remote = RemoteSource(settings.serving.imports.sources, settings.serving.bulk)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.start()
        clocks.start()
        yield
        await clocks.stop()
        await served.stop()
        await asyncio.to_thread(tracing.close)

    app = _App(
        title="Matinee",
        version=version("matinee"),
        description="Semantic recommendations: by liked items, by words, by both.",
        lifespan=lifespan,
        # The framework's own page has a script in it, and finds its files at the root of the host.
        docs_url=None,
        redoc_url=None,
        # A redirect would be one more kind of answer, and names whatever host the proxy in front asked for.
        redirect_slashes=False,
    )
    routers = [
        ranking.routes(bulk),
        models.routes(),
        feedback.routes(),
        items.routes(),
        uploads.routes(bulk, remote, settings.serving.max_body_bytes),
        catalogues.index_routes(),
        catalogues.routes(gateway, served),
        health.routes(served.default.health),
        page.routes(),
    ]
    for router in routers:
        # To include a router makes each of its routes again.
        app.router.routes.extend(router.routes)
    app.mount("/docs-assets", page.PageFiles(directory=page.SWAGGER), name="docs-assets")
    app.mount("/static", page.PageFiles(directory=page.STATIC), name="static")
    unknown = UnknownRoutes(routers)

    async def error_response(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = unknown.explain(error, request.method, request.scope["path"], getattr(request.scope.get("route"), "path", None))
        response = explain(error, request.state.request_id, request.state.caller, retry_after_s=settings.serving.retry_after_s)
        if response is None:
            raise error
        request.state.outcome = outcome(error, response.status_code)
        return response

    app.add_exception_handler(RequestValidationError, error_response)
    app.add_exception_handler(HTTPException, error_response)
    app.state.served = served
    # The server in front of the app asks it too, before a request is one.
    admission = app.state.admission = Admission(settings.serving, gateway.metrics, names_requests=names_requests, sharing=sharing)
    app.add_middleware(
        RequestMiddleware,
        settings=settings.serving,
        keys=keys,
        scopes=needed_scopes(routers),
        streamed=streamed_routes(routers),
        metrics=gateway.metrics,
        tracing=tracing,
        admission=admission,
        catalogues=served,
    )
    return app


class _App(FastAPI):
    def openapi(self) -> dict[str, object]:
        """The document, with the API key and the error responses that its routes name."""
        document = super().openapi()
        scheme = API_KEY.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        document["components"]["securitySchemes"] = {API_KEY.scheme_name: scheme}
        document["components"]["schemas"] = dict(sorted((error_schemas() | document["components"]["schemas"]).items()))
        document["paths"] |= _in_catalogues(document["paths"])
        return document


_CATALOGUE = {
    "name": "catalogue",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": CATALOGUE_NAME},
    "description": "which catalogue, as `GET /v1/catalogues` lists them",
}


def _in_catalogues(paths: Mapping[str, Mapping[str, dict[str, object]]]) -> dict[str, dict[str, dict[str, object]]]:
    """The routes that each catalogue has below its name: those of the default one, which the middleware maps them to."""
    below: dict[str, dict[str, dict[str, object]]] = {}
    for path, methods in paths.items():
        if path.startswith(API) and not path.startswith(CATALOGUES):
            operations = below[f"{BELOW}{{catalogue}}/{path.removeprefix(API)}"] = {}
            for method, operation in methods.items():
                parameters = [_CATALOGUE, *cast(list[object], operation.get("parameters", []))]
                id, summary = f"{operation['operationId']}_in_catalogue", f"{operation['summary']} (in a catalogue)"
                operations[method] = operation | {"operationId": id, "summary": summary, "parameters": parameters}
    return below
