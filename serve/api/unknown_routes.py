"""Paths and methods that no route has: what an error says of them, so that a typing mistake is seen at once. Does not know resources."""

import difflib
from collections.abc import Iterable, Mapping

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from serve.api.responses import api_routes

_LONGEST = 200
_NEAR = 0.75


class UnknownRoutes:
    """Explains a request that matched no route of `routers`."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = api_routes(routers)
        self._methods = _methods(self._routes)

    def explain(self, error: HTTPException, method: str, path: str, template: str | None) -> HTTPException:
        """`error` with a hint. `template`: the path of the route that has another method."""
        if error.status_code == 404:
            return HTTPException(404, self._absence(path))
        if error.status_code == 405 and template is not None and template in self._methods:
            # The framework names the methods of one route only, where several share a path.
            allowed = self._methods[template]
            return HTTPException(405, f"this route takes {allowed}, not {method[:10]}", {"Allow": allowed})
        return error

    def _absence(self, path: str) -> str:
        bare = path[:_LONGEST].rstrip("/")
        if bare != path and any(route.path_regex.match(bare) for route in self._routes):
            return "there is no such route: leave out the slash at the end of the path"
        if near := difflib.get_close_matches(bare, self._methods, 1, _NEAR):
            return f"there is no such route: did you mean {self._methods[near[0]]} {near[0]}? /docs lists all"
        return "there is no such route or page: /docs lists the routes"


def _methods(routes: Iterable[APIRoute]) -> Mapping[str, str]:
    """Path -> its methods, as `Allow` lists them."""
    methods: dict[str, set[str]] = {}
    for route in routes:
        methods.setdefault(route.path, set()).update(route.methods or ())
    return {path: ", ".join(sorted(names)) for path, names in methods.items()}
