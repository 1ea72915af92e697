"""The calls that Matinee makes of a Qdrant server, answered over HTTP by the client's own in-memory mode: for faults where no server is.

    python -m bench.faults.fake_qdrant --port 6333

Without disk, cluster, gRPC and keys, and an approximate index is exact here. A collection in strict mode refuses a filter on a field that
has no index, as the server does. `PUT /delay?seconds=2` makes every later answer late; SIGSTOP makes it hang. What only a real server does
is not shown by it.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import orjson
import uvicorn
from pydantic import BaseModel, TypeAdapter
from qdrant_client import AsyncQdrantClient, models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from matinee.cli.errors import run_main

Body = TypeVar("Body", bound=BaseModel)


class Fake:
    """The routes. Each handler has the name of what it answers."""

    def __init__(self) -> None:
        self._client = AsyncQdrantClient(":memory:")
        self._delay_s = 0.0
        # Fields with an index, of collections in strict mode.
        self._indexed: dict[str, set[str]] = {}
        one = "/collections/{name}"
        self.app = Starlette(
            routes=[
                Route("/", self.version),
                Route("/delay", self.delay, methods=["PUT"]),
                self._route("GET", "/collections", lambda _: self._client.get_collections()),
                self._route("GET", "/aliases", lambda _: self._client.get_aliases()),
                self._route("POST", "/collections/aliases", self.switch_aliases),
                self._route("GET", one, lambda request: self._client.get_collection(_name(request))),
                self._route("GET", f"{one}/exists", self.exists),
                self._route("PUT", one, self.create),
                self._route("PATCH", one, self.describe),
                self._route("DELETE", one, lambda request: self._client.delete_collection(_name(request))),
                self._route("PUT", f"{one}/index", self.index),
                self._route("PUT", f"{one}/points", self.upsert),
                self._route("POST", f"{one}/points/delete", self.delete),
                self._route("POST", f"{one}/points/payload", self.set_payload),
                self._route("POST", f"{one}/points", self.retrieve),
                self._route("POST", f"{one}/points/scroll", self.scroll),
                self._route("POST", f"{one}/points/count", self.count),
                self._route("POST", f"{one}/points/query", self.query),
                self._route("POST", f"{one}/points/query/batch", self.query_batch),
                self._route("POST", f"{one}/facet", self.facet),
            ]
        )

    def _route(self, method: str, path: str, answer: Callable[[Request], Awaitable[Any]]) -> Route:
        async def endpoint(request: Request) -> Response:
            await asyncio.sleep(self._delay_s)
            try:
                result, status = await answer(request), 200
            except ValueError as error:
                # The server's own codes: what exists already, and what is not there.
                status = 409 if "already exists" in str(error) else 404 if str(error).endswith("not found") else 400
                return _json({"status": {"error": str(error)}, "time": 0.0}, status)
            return _json({"result": TypeAdapter(Any).dump_python(result, mode="json"), "status": "ok", "time": 0.0})

        return Route(path, endpoint, methods=[method])

    async def version(self, _: Request) -> Response:
        return _json({"title": "qdrant - vector search engine (in memory)", "version": "1.20.0"})

    async def delay(self, request: Request) -> Response:
        self._delay_s = float(request.query_params["seconds"])
        return _json({})

    async def exists(self, request: Request) -> dict[str, bool]:
        return {"exists": await self._client.collection_exists(_name(request))}

    async def create(self, request: Request) -> bool:
        body = await _body(request, models.CreateCollection)
        self._indexed.pop(_name(request), None)
        if body.strict_mode_config is not None and body.strict_mode_config.enabled:
            self._indexed[_name(request)] = set()
        return await self._client.create_collection(
            _name(request), vectors_config=body.vectors or {}, sparse_vectors_config=body.sparse_vectors, metadata=body.metadata
        )

    async def describe(self, request: Request) -> bool:
        body = await _body(request, models.UpdateCollection)
        if body.metadata is None:
            # How vectors are indexed and read means nothing in memory.
            return True
        return await self._client.update_collection(_name(request), metadata=body.metadata)

    async def switch_aliases(self, request: Request) -> bool:
        body = await _body(request, models.ChangeAliasesOperation)
        return await self._client.update_collection_aliases(body.actions)

    async def index(self, request: Request) -> models.UpdateResult:
        """The in-memory mode needs no payload indexes."""
        field = (await _body(request, models.CreateFieldIndex)).field_name
        self._indexed.get(_name(request), set()).add(field)
        return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)

    def _check_strict(self, request: Request, body: Any) -> None:
        indexed = self._indexed.get(_name(request))
        missing = set() if indexed is None else {*_filtered(body.model_dump(exclude_none=True))} - indexed
        if missing:
            raise ValueError(f"Index required but not found for {sorted(missing)} (strict mode)")

    async def upsert(self, request: Request) -> models.UpdateResult:
        body = await _body(request, models.PointsList)
        return await self._client.upsert(_name(request), body.points, update_mode=body.update_mode)

    async def set_payload(self, request: Request) -> models.UpdateResult:
        body = await _body(request, models.SetPayload)
        self._check_strict(request, body.filter or models.Filter())
        return await self._client.set_payload(_name(request), body.payload, points=body.points or body.filter or models.Filter())

    async def delete(self, request: Request) -> models.UpdateResult:
        body: models.FilterSelector | models.PointIdsList = TypeAdapter(models.PointsSelector).validate_json(await request.body())
        self._check_strict(request, body)
        return await self._client.delete(_name(request), body)

    async def retrieve(self, request: Request) -> list[models.Record]:
        body = await _body(request, models.PointRequest)
        return await self._client.retrieve(
            _name(request), body.ids, with_payload=body.with_payload or False, with_vectors=body.with_vector or False
        )

    async def scroll(self, request: Request) -> models.ScrollResult:
        body = await _body(request, models.ScrollRequest)
        self._check_strict(request, body)
        points, after = await self._client.scroll(
            _name(request),
            scroll_filter=body.filter,
            limit=body.limit or 10,
            offset=body.offset,
            with_payload=body.with_payload or False,
            with_vectors=body.with_vector or False,
        )
        return models.ScrollResult(points=points, next_page_offset=after)

    async def count(self, request: Request) -> models.CountResult:
        body = await _body(request, models.CountRequest)
        self._check_strict(request, body)
        return await self._client.count(_name(request), count_filter=body.filter)

    async def query(self, request: Request) -> models.QueryResponse:
        [answer] = await self._answers(request, [await _body(request, models.QueryRequest)])
        return answer

    async def query_batch(self, request: Request) -> list[models.QueryResponse]:
        return await self._answers(request, (await _body(request, models.QueryRequestBatch)).searches)

    async def _answers(self, request: Request, queries: list[models.QueryRequest]) -> list[models.QueryResponse]:
        for query in queries:
            self._check_strict(request, query)
        # Whether a search is exact, and how hard it looks, means nothing in memory.
        return await self._client.query_batch_points(
            _name(request), [query.model_copy(update={"params": None, "prefetch": _plain(query.prefetch)}) for query in queries]
        )

    async def facet(self, request: Request) -> models.FacetResponse:
        body = await _body(request, models.FacetRequest)
        self._check_strict(request, body)
        return await self._client.facet(_name(request), body.key, facet_filter=body.filter, limit=body.limit or 10)


def _filtered(value: Any) -> Iterator[str]:
    """The fields of the conditions in a request, and that of its order."""
    if isinstance(value, dict):
        field = value.get("key")
        if isinstance(field, str):
            yield field
        for inner in value.values():
            yield from _filtered(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _filtered(inner)


def _plain(prefetch: models.Prefetch | list[models.Prefetch] | None) -> list[models.Prefetch]:
    every = prefetch if isinstance(prefetch, list) else [] if prefetch is None else [prefetch]
    return [each.model_copy(update={"params": None}) for each in every]


def _name(request: Request) -> str:
    return str(request.path_params["name"])


async def _body(request: Request, type: type[Body]) -> Body:
    return type.model_validate_json(await request.body())


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port that the server binds")
    args = parser.parse_args()
    uvicorn.run(Fake().app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    run_main(main)
