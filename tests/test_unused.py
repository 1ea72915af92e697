"""Code that only tests use, or nobody: each function, class and method of the product is named somewhere else in it.

A search for names, not for calls: it misses a name that something else has too, and it has no false alarms.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOPS = ("matinee", "serve", "train", "bench", "helm", "observability")
FILES = [ROOT / "generate.py", *(path for top in TOPS for path in (ROOT / top).rglob("*.py"))]
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


def defaults_of(tree: ast.Module) -> Iterator[tuple[str, str, int | None]]:
    """Function or class, parameter with a default, and its place among a call's arguments (None: by name alone); without overrides."""
    scopes: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.bases)]
    for scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(isinstance(d, ast.Call) for d in node.decorator_list):
                name = scope.name if node.name == "__init__" and isinstance(scope, ast.ClassDef) else node.name
                if name.startswith("__"):
                    continue
                static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
                own = int(isinstance(scope, ast.ClassDef) and not static)
                places = [*node.args.posonlyargs, *node.args.args]
                for place, argument in list(enumerate(places))[len(places) - len(node.args.defaults) :]:
                    yield name, argument.arg, place - own
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                    if default is not None:
                        yield name, argument.arg, None


def unpassed(sources: dict[str, str], callers: dict[str, str]) -> list[str]:
    """`module: function(parameter)` for each parameter with a default that no call of a function of this name passes."""
    passed: dict[str, tuple[int, set[str | None]]] = {}
    for tree in map(ast.parse, callers.values()):
        for node in ast.walk(tree):
            # `partial(f, ...)` and `to_thread(f, ...)` pass arguments of `f`; so does a class' own `cls(...)`.
            for call in [node.func, *node.args[:1]] if isinstance(node, ast.Call) else []:
                name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
                count, names = passed.get(name, (0, set()))
                starred = any(isinstance(argument, ast.Starred) for argument in node.args)
                passed[name] = max(count, 99 if starred else len(node.args)), names | {keyword.arg for keyword in node.keywords}
    found = []
    for module, text in sources.items():
        for function, parameter, place in defaults_of(ast.parse(text)):
            calls = [passed.get(name, (0, set[str | None]())) for name in (function, *(["cls"] if function[:1].isupper() else []))]
            if not any({parameter, None} & names or (place is not None and count > place) for count, names in calls):
                found.append(f"{module}: {function}({parameter})")
    return found


def test_every_parameter_with_a_default_is_passed_by_somebody() -> None:
    tests = {path.as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    product = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    # A filter of templates, and what Ray calls by its own name.
    assert [name for name in unpassed(product, product | tests) if "decimals" not in name] == []


def test_the_search_finds_a_parameter_that_nobody_passes() -> None:
    source = "def f(a, b=1, *, c=2): ...\nclass K:\n    def __init__(self, d=3): ...\n    def g(self, e=4): ...\n"
    assert unpassed({"m": source}, {"x": "f(1)\nK()\nk.g()\n"}) == ["m: f(b)", "m: f(c)", "m: K(d)", "m: g(e)"]
    assert unpassed({"m": source}, {"x": "f(1, 2, c=3)\ncls(1)\npartial(k.g, 1)\n"}) == []
