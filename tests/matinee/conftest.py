import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from matinee.index import IndexStore
from matinee.index_edge_store import EdgeStore
from matinee.index_qdrant import QdrantStore
from matinee.settings import IndexSettings

SERVER = os.environ.get("MATINEE_TEST_QDRANT_URL")
ENGINES = ["edge", "memory", *(["server"] if SERVER else [])]


@pytest.fixture(params=ENGINES)
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IndexStore]:
    """A store of each engine, empty; what it leaves on a server is removed."""
    if request.param == "edge":
        yield EdgeStore(tmp_path / "index", "test")
    elif request.param == "memory":
        client = AsyncQdrantClient(":memory:")
        yield QdrantStore(IndexSettings(), "test", client=client)
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
