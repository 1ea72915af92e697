"""The HTTP API in this process: one graph for the session, asked through ASGI, and a factory for graphs that a test bends."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.serve.api_client import Api, connected


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The app over 40 of the bundled films; tests that write use ids of their own."""
    enhancer = local_graph.FakeEnhancer(marked=frozenset({"Marked"}))
    home = tmp_path_factory.mktemp("api")
    graph = local_graph.build_local_graph(home, films=local_graph.demo_films()[:40], enhancer=enhancer)
    async with graph as service, connected(service, enhancer) as api:
        yield api


@pytest.fixture
def bent(local_graph: Any, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Api]]:
    """A factory of apps over a few films: `bent(films=0, parts={"embedder": ...}, serving={...}, search={...})`."""

    @asynccontextmanager
    async def make(*, films: int = 5, parts: dict[str, Any] | None = None, **overrides: Any) -> AsyncIterator[Api]:
        enhancer = local_graph.FakeEnhancer()
        settings = local_graph.local_settings(tmp_path, **overrides)
        graph = local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:films], enhancer=enhancer, settings=settings)
        async with graph as service:
            service.graph = replace(service.graph, **(parts or {}))
            async with connected(service, enhancer) as api:
                yield api

    return make
