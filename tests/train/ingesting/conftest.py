"""The cluster that the tests of this folder share: it takes seconds to start."""

from collections.abc import Iterator

import pytest

from tests.train.ingesting.nodes import Nodes


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()
