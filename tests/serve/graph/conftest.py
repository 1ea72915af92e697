"""A Retriever for the tests of its parts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.graph.retriever_bench import Bench


@pytest.fixture
async def bench(local_graph: Any, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(local_graph, tmp_path)
    yield bench
    if bench.retriever is not None:
        await bench.retriever.close()
