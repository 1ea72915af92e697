"""Makes this folder's helper modules importable by their names: `tests/` is no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
