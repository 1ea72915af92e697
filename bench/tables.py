"""A Markdown table, as every benchmark prints its figures."""

from collections.abc import Iterable, Sequence


def markdown(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [" | ".join(map(str, row)) for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(f"| {line} |" for line in lines)
