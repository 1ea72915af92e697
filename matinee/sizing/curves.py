"""The figures that sizes are computed with, each with its source."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Figure:
    """`measured`: on a machine; otherwise worked out or assumed. `source` says where, or why."""

    value: float
    what: str
    measured: bool
    source: str


@cache
def read() -> dict[str, Figure]:
    """Name -> figure, of `curves.yaml`."""
    entries = yaml.safe_load(Path(__file__).with_name("curves.yaml").read_text(encoding="utf-8"))
    return {name: Figure(**entry) for name, entry in entries.items()}
