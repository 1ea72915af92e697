"""The HTTP API: routes, their documentation, and the page. Thin: each route checks access, asks the service, and answers.

Ranked answers are put together as bytes, because the Retriever has already written the JSON of their items.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from matinee.items import MAX_LIST, Item, ItemFilter, Name
from matinee.recommend.recommender import RankedItems
from serve.api import feedback, schemas
from serve.api.auth import Access
from serve.api.errors import RequestError, explain, outcome
from serve.api.feedback import Events
from serve.api.middleware import Door
from serve.api.responses import ERRORS, allow, answer
from serve.graph import messages
from serve.graph.gateway import Service
from serve.graph.health import State
from serve.graph.ids import as_uid
from serve.graph.item_writes import Upkeep
from serve.graph.parts import Trace
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing

STATIC = Path(__file__).parents[1] / "static"

_PAGE_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"

Values = Annotated[list[Name], Query(max_length=MAX_LIST)]
_ANY: list[str] = []


class PageFiles(StaticFiles):
    """The page's files, asked for anew at each visit: an upgrade must never mix old and new modules."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(service: Service, access: Access, metrics: Metrics, *, names_requests: bool = True) -> FastAPI:
    """The ASGI app of one gateway. `service` may stand on Ray handles or, in tests, on parts in the same process."""
    settings = service.settings
    upkeep, events, tracing = Upkeep(service), Events(settings, metrics), Tracing(settings.tracing, "gateway")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        upkeep.start()
        yield
        await upkeep.stop()
        await asyncio.to_thread(events.close)
        await asyncio.to_thread(tracing.close)

    app = FastAPIOffline(
        title="Matinee",
        version=version("matinee"),
        description="Semantic recommendations: by liked items, by words, by both.",
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs-assets",
        # A redirect would be one more kind of answer, and names whatever host the proxy in front asked for.
        redirect_slashes=False,
    )
    routers = [
        _ranking(service, access, metrics, events),
        feedback.routes(events, access),
        _catalogue(service, access, upkeep),
        _state(State(service), access),
    ]
    for router in routers:
        app.include_router(router)
    methods = _methods(routers)
    app.mount("/static", PageFiles(directory=STATIC), name="static")

    async def known(request: Request, error: Exception) -> Response:
        response = explain(error, request.state.request_id, retry_after_s=settings.serving.retry_after_s)
        if response is None:
            raise error
        path = getattr(request.scope.get("route"), "path", None)
        if response.status_code == 405 and path in methods:
            # The framework names the methods of one route only, where several share a path.
            response.headers["Allow"] = methods[path]
        request.state.outcome = outcome(error, response.status_code)
        return response

    app.add_exception_handler(RequestValidationError, known)
    app.add_exception_handler(HTTPException, known)
    app.add_middleware(Door, settings=settings.serving, metrics=metrics, tracing=tracing, names_requests=names_requests)
    return app


def _methods(routers: Sequence[APIRouter]) -> dict[str, str]:
    """Path -> its methods, as `Allow` lists them."""
    found: dict[str, set[str]] = {}
    for route in (route for router in routers for route in router.routes if isinstance(route, APIRoute)):
        found.setdefault(route.path, set()).update(route.methods or ())
    return {path: ", ".join(sorted(names)) for path, names in found.items()}


def _ranking(service: Service, access: Access, metrics: Metrics, events: Events) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS)

    def ranked(request: Request, found: RankedItems, endpoint: str, user_id: str | None = None) -> Response:
        metrics.results(found.count, endpoint=endpoint)
        trace: Trace = request.state.trace
        events.answered(found, endpoint, request.state.request_id, trace, user_id, getattr(request.state, "text", None))
        debug = {} if found.debug is None else {"debug": _timed(found.debug, trace)}
        return answer(
            request,
            items=orjson.Fragment(found.items),
            score_type=found.score_type,
            likes=found.likes,
            degraded=trace.degraded,
            **debug,
        )

    @routes.post("/recommend", response_model=schemas.RankedResponse, name="recommend")
    async def recommend(body: schemas.RecommendRequest, request: Request) -> Response:
        """Items for someone who likes these, dislikes those, and asks for something."""
        allow(access, request, "admin" if body.debug else "read")
        request.state.text = body.text
        return ranked(request, await service.recommend(body, request.state.trace), "recommend", body.user_id)

    @routes.get("/items/{id}/similar", response_model=schemas.RankedResponse, name="similar")
    async def similar(
        id: str,
        request: Request,
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
        diversity: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)] = 0.0,
    ) -> Response:
        """Items near to one item, with what they share. `id` is the index id or the catalogue's own."""
        allow(access, request, "read")
        return ranked(request, await service.similar(id, k, diversity, request.state.trace), "similar")

    @routes.post("/search", response_model=schemas.RankedResponse, name="search")
    async def search(body: schemas.SearchRequest, request: Request) -> Response:
        """Items for a text: by meaning, by words, or both."""
        allow(access, request, "admin" if body.exact or body.debug else "read")
        request.state.text = body.text
        return ranked(request, await service.search(body, request.state.trace), "search", body.user_id)

    @routes.post("/embed", response_model=schemas.EmbedResponse, name="embed")
    async def embed(body: schemas.EmbedRequest, request: Request) -> Response:
        """Vectors of texts, by the encoder that serves: what `python -m train.ingest --via api` builds an index with."""
        allow(access, request, "read")
        made = await service.embed(body.texts, body.kind, request.state.trace)
        return answer(request, fingerprint=made.fingerprint, vectors=made.vectors)

    @routes.post("/describe", response_model=schemas.DescribeResponse, name="describe")
    async def describe(body: schemas.DescribeRequest, request: Request) -> Response:
        """A description that the enhancer writes from an item's metadata, checked against it."""
        allow(access, request, "read")
        item = body.item
        if item is None:
            _, payload = await service.stored(body.id or "", request.state.trace)
            item = Item.model_validate(payload["item"])
        written = await service.describe(item, request.state.trace)
        return answer(
            request,
            description=written.text,
            source=written.source,
            marked=written.marked,
            violations=[str(violation) for violation in written.violations],
            attempts=written.attempts,
            item=item.facts(),
        )

    return routes


def _catalogue(service: Service, access: Access, upkeep: Upkeep) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["catalogue"], responses=ERRORS)

    @routes.get("/items", response_model=schemas.ItemsResponse, name="list_items")
    async def list_items(
        request: Request,
        q: Annotated[str | None, Query(min_length=1, max_length=500, description="the beginning of a title, typos forgiven")] = None,
        since: Annotated[int, Query(ge=0, le=2**62, description="only items written after this revision")] = 0,
        cursor: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        origin: Annotated[str | None, Query(pattern="^(file|api)$")] = None,
        deleted: bool = False,
    ) -> Response:
        """Suggestions for a beginning (`q`), or the whole catalogue page by page."""
        allow(access, request, "read")
        trace: Trace = request.state.trace
        if q is not None:
            found = await service.suggest(q, min(limit, 20), trace)
            return answer(request, items=[_stored(id, payload) for id, payload in found], cursor=None)
        page, after = await service.ask(messages.Page(limit, _cursor(cursor), since, ItemFilter(), origin, deleted), trace)
        return answer(request, items=[_stored(id, payload) for id, payload in page], cursor=after)

    @routes.get("/items/{id}", response_model=schemas.StoredItem, name="get_item")
    async def get_item(id: str, request: Request) -> Response:
        """One item as the index holds it."""
        allow(access, request, "read")
        uid, payload = await service.stored(id, request.state.trace)
        return Response(orjson.dumps(_stored(uid, payload)), media_type="application/json")

    @routes.put("/items", response_model=schemas.WriteResponse, name="put_items")
    async def put_items(body: schemas.PutItemsRequest, request: Request) -> Response:
        """Add or replace up to 100 items: searchable when this returns, described in the background where the index wants it."""
        allow(access, request, "write")
        return answer(request, items=await upkeep.put(body.items, request.state.trace))

    @routes.delete("/items/{id}", response_model=schemas.DeleteResponse, name="delete_item")
    async def delete_item(id: str, request: Request) -> Response:
        """Delete an item; a later ingest of the catalogue's file does not bring it back."""
        allow(access, request, "write")
        return answer(request, id=await upkeep.delete(id, request.state.trace), deleted=True)

    @routes.get("/facets", response_model=schemas.FacetsResponse, name="facets")
    async def facets(
        request: Request,
        kind: Values = _ANY,
        genres: Values = _ANY,
        language: Values = _ANY,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        """Values and counts for filters, among the items that pass the given ones."""
        allow(access, request, "read")
        filter = ItemFilter(kind=tuple(kind), genres=tuple(genres), language=tuple(language))
        found, count = await service.ask(messages.Facets(filter, limit), request.state.trace)
        values = {key: [{"value": value, "count": n} for value, n in pairs] for key, pairs in found.items()}
        return answer(request, count=count, **values)

    return routes


def _state(state: State, access: Access) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/info", tags=["state"], response_model=schemas.InfoResponse, responses=ERRORS, name="info")
    async def info(request: Request) -> Response:
        """Versions, models, limits, and what is degraded."""
        allow(access, request, "read")
        return answer(request, **await state.info(access.writable, request.state.trace))

    @routes.get("/livez", tags=["state"], name="livez")
    async def livez() -> Response:
        """The process answers."""
        return Response(b'{"alive":true}', media_type="application/json")

    @routes.get(
        "/readyz", tags=["state"], response_model=schemas.ReadyResponse, responses={503: {"model": schemas.ReadyResponse}}, name="readyz"
    )
    async def readyz(request: Request) -> Response:
        """Whether traffic may come: there is an index, and the parts that searches need answer."""
        reasons = await state.unready(request.state.trace)
        body = orjson.dumps({"ready": not reasons, "reasons": reasons})
        return Response(body, 503 if reasons else 200, media_type="application/json")

    @routes.get("/", include_in_schema=False, name="page")
    async def page() -> Response:
        body = (STATIC / "index.html").read_bytes()
        return Response(body, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _PAGE_POLICY})

    return routes


def _timed(case: dict[str, Any], trace: Trace) -> dict[str, Any]:
    """A case (`matinee.recommend.explain`) with the times of the request's stages."""
    times = trace.stages | {"forensics": case["forensics_ms"]}
    return {name: value for name, value in case.items() if name != "forensics_ms"} | {
        "times_ms": {k: round(v, 3) for k, v in times.items()}
    }


def _cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    uid = as_uid(cursor, "", strict=True)
    if uid is None:
        raise RequestError(422, "cursor: not one that this API gave; start again without it")
    return uid


def _stored(id: str, payload: dict[str, Any]) -> dict[str, Any]:
    if payload.get("deleted"):
        return {"id": id, "item": {"title": "(deleted)"}, "origin": "api", "revision": payload["revision"], "deleted": True}
    keys = ("item", "origin", "revision", "enriched", "description")
    return {"id": id, **{key: payload[key] for key in keys if key in payload}}
