"""The options that say where training pairs come from: of `train.triplets`, and of the pipeline that runs it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class PairSources:
    """Which pairs there are, and how many are taken."""

    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets; their training side makes pairs")] = None
    descriptions: Annotated[Path | None, typer.Option(help="JSONL of train.describe; each description becomes a query for its item")] = None
    count: Annotated[int, typer.Option(min=1, help="rows of all sources together")] = 8000
    weight: Annotated[list[str], typer.Option(metavar="SOURCE=NUMBER", help="share of a source, 0 leaves it out")] = field(
        default_factory=list
    )
