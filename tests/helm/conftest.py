"""Makes this folder's helper modules importable by their names (`tests/` is no package), and starts one graph for all that want it."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, while_in: Any) -> Any:
    """A `stack.Stack`: a Ray cluster with the chart's environment, one for all of this folder."""
    from stack import started

    return while_in(Path(__file__).parent, started(tmp_path_factory.mktemp("stack"), tiny_base))
