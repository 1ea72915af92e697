"""The HTTP API as an ASGI app: its routes, middleware, error responses and documentation. Each resource has a module of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import cast

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.applications import Starlette
from starlette.types import ASGIApp

from matinee.settings.tree import CATALOGUE_NAME
from serve.api import catalogues, feedback, health, items, models, page, ranking, uploads
from serve.api.admission import API, BELOW, CATALOGUES, Admission
from serve.api.auth import ApiKeys
from serve.api.middleware import RequestMiddleware
from serve.api.responses import API_KEY, error_schemas, needed_scopes, streamed_routes
from serve.api.served_catalogues import ServedCatalogues
from serve.api.unknown_routes import UnknownRoutes
from serve.graph.bulk import Bulk
from serve.graph.clock_skew import ClockWatch
from serve.graph.concurrency import Sharing
from serve.graph.gateway import Gateway
from serve.telemetry.tracing import Tracing

ROUTERS = (
    ranking.router,
    models.router,
    feedback.router,
    items.router,
    uploads.router,
    catalogues.index_router,
    catalogues.router,
    health.router,
    page.router,
)
_UNKNOWN = UnknownRoutes(ROUTERS)


def create_app(gateway: Gateway, keys: ApiKeys, *, names_requests: bool = True) -> FastAPI:
    """The ASGI app of one gateway, whose graph stands on Ray handles or, in tests, on parts in the same process."""
    serving, sharing = gateway.settings.serving, Sharing()
    clocks, tracing = ClockWatch(gateway.graph.clocks, gateway.metrics), Tracing(gateway.settings.tracing, "gateway")
    served = ServedCatalogues(gateway, Bulk(serving.bulk, serving.deadline_s, sharing), sharing)

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
    for router in ROUTERS:
        # To include a router makes each of its routes again.
        app.router.routes.extend(router.routes)
    app.mount("/docs-assets", page.PageFiles(directory=page.SWAGGER), name="docs-assets")
    app.mount("/static", page.PageFiles(directory=page.STATIC), name="static")
    app.state.served = served
    # The server in front of the app asks it too, before a request is one.
    admission = app.state.admission = Admission(serving, gateway.metrics, names_requests=names_requests, sharing=sharing)
    app.add_middleware(
        RequestMiddleware,
        settings=serving,
        keys=keys,
        scopes=needed_scopes(ROUTERS),
        streamed=streamed_routes(ROUTERS),
        metrics=gateway.metrics,
        tracing=tracing,
        admission=admission,
        catalogues=served,
        unknown=_UNKNOWN,
    )
    return app


class _App(FastAPI):
    # A request goes to `RequestMiddleware` and to its route. The framework's own layers would take as long, and do the same again.
    __call__ = Starlette.__call__

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        for make, args, options in self.user_middleware:
            app = make(app, *args, **options)
        return app

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
