"""Starts one graph for all tests that want it."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, while_in: Any) -> Any:
    """A `stack.Stack`: a Ray cluster with the chart's environment, one for all of this folder."""
    from tests.helm.stack import started

    return while_in(Path(__file__).parent, lambda: started(tmp_path_factory.mktemp("stack"), tiny_base))
