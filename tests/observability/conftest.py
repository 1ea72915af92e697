"""Makes `observability`, which is no installed package, and the helper modules of this folder and of the chart's tests importable."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helm"), str(TESTS / "observability")]
