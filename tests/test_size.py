"""A function fits on a screen, a file on a few: none of the product is longer than 60 and 400 lines."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOPS = ("matinee", "serve", "train")
MAX_LINES = 60
MAX_FILE_LINES = 400


def test_no_function_is_longer_than_a_screen() -> None:
    paths = (path for top in TOPS for path in sorted((ROOT / top).rglob("*.py")))
    assert [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in long_functions(path.read_text(encoding="utf-8"))] == []


def long_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_LINES:
            yield node.name


def test_a_long_function_is_found() -> None:
    lines = "\n".join("    x = 1" for _ in range(MAX_LINES - 1))
    assert list(long_functions(f"def fits():\n{lines}\nasync def long():\n{lines}\n    y = 1\n")) == ["long"]


def test_no_file_is_longer_than_one_noun_needs() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for top in TOPS
        for path in sorted((ROOT / top).rglob("*.py"))
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}
