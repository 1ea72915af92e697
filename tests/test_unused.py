"""Code that only tests use, or nobody: each function, class and method of the product is named somewhere else in it.

A search for names, not for calls: it misses a name that something else has too, and it has no false alarms.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [path for top in ("matinee", "serve", "train", "bench", "helm", "observability") for path in (ROOT / top).rglob("*.py")]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(scope: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Without what a decorator hands to a framework, and what a base class calls."""
    for node in scope.body:
        if isinstance(node, Definition) and not node.decorator_list and not node.name.startswith("__"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.bases:
            yield from definitions(node)


def names_of(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every name that is used, and whether it can mean another module's: an attribute, an import, or a text such as a setting's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, True
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, True) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((word, True) for word in node.value.replace(":", ".").split(".") if word.isidentifier())
        elif isinstance(node, ast.Name):
            yield node.id, False


def unused(sources: dict[str, str]) -> list[str]:
    """`module: name` of each definition that nothing names outside of itself."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    used = {name: list(names_of(tree)) for name, tree in trees.items()}
    anywhere = Counter(name for names in used.values() for name, foreign in names if foreign)
    found = []
    for module, tree in trees.items():
        here = Counter(name for name, foreign in used[module] if not foreign)
        for node in definitions(tree):
            inside = [name for name, _ in names_of(node)].count(node.name)
            if anywhere[node.name] + here[node.name] <= inside:
                found.append(f"{module}: {node.name}")
    return found


def test_nothing_is_there_for_tests_alone() -> None:
    found = unused({path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES})
    assert found == []


def test_the_search_finds_what_nobody_names() -> None:
    recursive = "def again():\n    again()\n"
    method = "class A:\n    def gone(self): ...\n    def kept(self): ...\nA().kept()\n"
    local = "live = []\nprint(live)\n"
    assert unused({"a": recursive, "b": method, "c": "def live(): ...\n", "d": local}) == ["a: again", "b: gone", "c: live"]
    assert unused({"a": recursive, "e": "from a import again\n"}) == []
