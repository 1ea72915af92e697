"""What the commands print on: results on stdout, everything else on stderr, JSON alone on stdout."""

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]


def print_json(answer: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
