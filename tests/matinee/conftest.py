"""Stores of each engine, and the active index of a few films."""

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from matinee.index.active import ActiveIndex
from matinee.index.edge.store import EdgeStore
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.index.qdrant.store import QdrantStore
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.items import Item
from matinee.settings.index import IndexSettings
from matinee.settings.tree import Settings
from tests.matinee.active_versions import OtherEncoder, build

SERVER = os.environ.get("MATINEE_TEST_QDRANT_URL")
ENGINES = ["edge", "memory", "tenant", *(["server"] if SERVER else [])]


@pytest.fixture(params=ENGINES)
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IndexStore]:
    """A store of each engine, empty; what it leaves on a server is removed."""
    if request.param == "edge":
        yield EdgeStore(tmp_path / "index", "test")
    elif request.param in ("memory", "tenant"):
        client = AsyncQdrantClient(":memory:")
        kind = QdrantStore if request.param == "memory" else TenantStore
        yield kind(IndexSettings(), "test", client=client)
        await client.close()
    else:
        name = f"test-{uuid.uuid4().hex}"
        server = QdrantStore(IndexSettings(engine="qdrant", url=SERVER), name)
        yield server
        client = AsyncQdrantClient(url=SERVER)
        for collection in (await client.get_collections()).collections:
            if collection.name.startswith(f"{name}."):
                await client.delete_collection(collection.name)
        await client.close()
        await server.close()


# of the active index


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    return list(local_graph.demo_films()[:6])


@pytest.fixture(scope="module")
def maker(local_graph: Any) -> PointMaker:
    return PointMaker(local_graph.embedder_replica().slot.model, "raw")


@pytest.fixture(scope="module")
def other(maker: PointMaker) -> PointMaker:
    encoder: Any = OtherEncoder(maker.embedder)
    return PointMaker(encoder, "raw")


@pytest.fixture
def settings(local_graph: Any, tmp_path: Path) -> Settings:
    made: Settings = local_graph.local_settings(tmp_path)
    return made


@pytest.fixture
def store(settings: Settings) -> IndexStore:
    return open_store(settings)


@pytest_asyncio.fixture
async def active(store: IndexStore, maker: PointMaker, films: list[Item]) -> AsyncIterator[ActiveIndex]:
    """The active index of a first version."""
    await build(store, maker, films)
    index = ActiveIndex(store)
    await index.refresh()
    yield index
    await index.close()
