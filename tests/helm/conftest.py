"""Makes this folder's helper modules importable by their names (`tests/` is no package), and starts one graph for all that want it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `stack.Stack`: a Ray cluster with the chart's environment, one for the session."""
    from stack import started

    with started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
