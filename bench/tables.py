"""The tables of figures that the benchmarks print, in Markdown."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def markdown(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [" | ".join(map(str, row)) for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def print_aligned(heads: Iterable[str], rows: Iterable[Iterable[str]], *, width: int) -> None:
    """The same for people: columns of one width each, `width` characters in all."""
    table = Table(box=box.MARKDOWN)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=width).print(table)
