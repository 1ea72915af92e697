"""Every regular expression of the product, read from its source, and texts that are hard for one.

Nothing is imported or listed: a new expression is found wherever it stands. What can't be read raises, so that none is left out.
"""

import ast
import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.matinee.linear_time import Shape

ROOT = Path(__file__).parents[2]
FOLDERS = ("matinee", "serve", "train", "observability", "helm", "k8s")
# Expressions of the package `regex` have classes that `re` can't parse: there, `test_linear_time` measures every function instead.
WITH_REGEX = {ROOT / "matinee" / "characters.py", ROOT / "matinee" / "languages" / "folding.py"}
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
# A file without any of these neither imports an engine nor asks an expression that it got elsewhere.
_ASKS = re.compile(rf"\b(?:re2?|regex|sre_compile)\b|\.(?:{'|'.join(sorted(METHODS))})\(")
# What may stand where an expression is put together from values that are only known when it runs.
_STAND_INS = ("alpha", "beta", "gamma", "delta")
# One of each kind of character, the usual ones first.
_POOL = "aA1 .,\n-_'\"()[]<>&#*`~:/@!?…”’“É日½\t\xa0" + "".join(map(chr, range(33, 127)))
_MAX_KINDS = 8
_FAILS = "\x00"


@dataclass(frozen=True)
class Pattern:
    """One expression and the methods by which the product asks it."""

    where: str
    text: str
    flags: int
    methods: tuple[str, ...]

    def asked(self) -> Iterator[tuple[str, Callable[[str], object]]]:
        """A function of a text for each method."""
        compiled = re.compile(self.text, self.flags)
        for method in self.methods:
            if method in ("sub", "subn"):
                yield method, lambda text: compiled.sub("", text)
            elif method == "finditer":
                yield method, lambda text: [*compiled.finditer(text)]
            else:
                yield method, getattr(compiled, method)


class _Module:
    """A file. Most are not parsed: a search of their text says that they ask no expression."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return [*ast.walk(self.tree)]

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What its global names stand for."""
        found = {}
        for statement in self.tree.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            value = getattr(statement, "value", None)
            if len(targets) == 1 and isinstance(targets[0], ast.Name) and isinstance(value, ast.expr):
                found[targets[0].id] = value
        return found

    @cached_property
    def imported(self) -> dict[str, str]:
        """Name -> the module that it comes from."""
        imports = [node for node in self.nodes if isinstance(node, ast.ImportFrom) and node.module]
        return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}

    @cached_property
    def calls(self) -> list[ast.Call]:
        return [node for node in self.nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]

    @cached_property
    def uses(self) -> list[tuple[str, str]]:
        """(last name of the receiver, method) of every call that may be one of an expression."""
        found = []
        for call in self.calls:
            assert isinstance(call.func, ast.Attribute)
            owner = call.func.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if call.func.attr in METHODS and name != "re":
                found.append((name, call.func.attr))
        return found


def product_patterns() -> list[Pattern]:
    modules = _modules()
    asking = [module for module in modules.values() if _ASKS.search(module.text)]
    for module in asking:
        _check_imports(module)
    compiled = {id(value): set[str]() for module in asking for value in module.constants.values() if _is_compile(value)}
    found, others = [], {}
    for module in asking:
        # Asked by a loop's variable or out of a mapping: any of the methods that are called on a name of no known expression.
        others[module.path] = set[str]()
        for name, method in module.uses:
            origin = module if name in module.constants else modules.get(module.imported.get(name, ""))
            value = origin.constants.get(name) if origin else None
            if id(value) in compiled:
                compiled[id(value)].add(method)
            elif method != "split":
                others[module.path].add(method)
    for module in asking:
        for call in module.calls:
            assert isinstance(call.func, ast.Attribute)
            if not (isinstance(call.func.value, ast.Name) and call.func.value.id == "re" and call.func.attr in METHODS | {"compile"}):
                continue
            where = f"{module.path.relative_to(ROOT)}:{call.lineno}"
            methods = {call.func.attr}
            if methods == {"compile"}:
                methods = compiled.get(id(call)) or others[module.path] or {"search"}
            text = _folded(call.args[0], module, modules, iter(_STAND_INS))
            if text is None:
                raise ValueError(f"{where}: this test can't read the expression: write it where it is compiled or used")
            found.append(Pattern(where, text, _flags(call), tuple(sorted(methods))))
    return found


def _modules() -> dict[str, _Module]:
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): _Module(path) for path in paths}


def _check_imports(module: _Module) -> None:
    others = {"re2", "sre_compile"} | (set() if module.path in WITH_REGEX else {"regex"})
    for node in module.nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        origin = node.module if isinstance(node, ast.ImportFrom) else None
        if others & {*names, origin} or origin == "re" or _renamed(node):
            raise ValueError(f"{module.path}: this test finds only expressions of `import re`")


def _renamed(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) and any(alias.name == "re" and alias.asname for alias in node.names)


def _is_compile(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile"


def _flags(call: ast.Call) -> int:
    """Flags are a constant of `re`, the last argument of `compile` or named."""
    place = {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(call.func.attr, 2)  # type: ignore[attr-defined]
    given = [keyword.value for keyword in call.keywords if keyword.arg == "flags"] + call.args[place:]
    return int(eval(ast.unparse(given[0]), {"re": re})) if given else 0


def _folded(node: ast.expr, module: _Module, modules: dict[str, _Module], stand_ins: Iterator[str]) -> str | None:
    """The text that an expression of Python stands for, None where that is known only when it runs."""
    match node:
        case ast.Constant(value=str() | int() as value):
            return str(value)
        case ast.JoinedStr(values=parts):
            texts = [_folded(part, module, modules, stand_ins) for part in parts]
            return "".join(next(stand_ins) if text is None else text for text in texts)
        case ast.FormattedValue(value=value):
            return _folded(value, module, modules, stand_ins)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = [_folded(side, module, modules, stand_ins) for side in (left, right)]
            return None if None in sides else "".join(map(str, sides))
        case ast.Call(func=ast.Name(id="pattern"), args=[expression, *_]) if module.imported.get("pattern") == "matinee.patterns":
            # It gives its first argument back, and keeps what it means in words.
            return _folded(expression, module, modules, stand_ins)
        case ast.Name(id=name) if name in module.constants:
            return _folded(module.constants[name], module, modules, stand_ins)
        case ast.Name(id=name) if module.imported.get(name) in modules:
            origin = modules[module.imported[name]]
            return _folded(ast.Name(name), origin, modules, stand_ins) if name in origin.constants else None
    return None


# Texts that are hard for an expression.


def hard_texts(pattern: Pattern) -> set[Shape]:
    """Texts out of the expression's own characters: what its repeats repeat, alone and in pairs, behind what leads up to them."""
    tree = parser.parse(pattern.text, pattern.flags)
    tests = [*_single(tree)]
    kinds: dict[tuple[bool, ...], str] = {}
    for c in _POOL + "".join(sorted(_literals(tree))):
        if any(test(c) for test in tests):
            # The ends of words and of lines are seen by assertions, which take no character.
            kinds.setdefault((c == "\n", c.isalnum(), *(test(c) for test in tests)), c)
    chars = [*kinds.values()][:_MAX_KINDS]
    shapes = {Shape((whole,), tail=_FAILS) for whole in (_witness(tree), _witness(tree) + " ", _witness(tree)[:-1]) if whole}
    for prefix in {"", *_prefixes(tree)}:
        for a in chars:
            shapes |= {Shape((a,), prefix), Shape((a,), prefix, _FAILS), Shape((prefix + a,), "", _FAILS)}
            for b in chars:
                if a != b:
                    shapes |= {Shape((a, b), prefix, _FAILS), Shape((a + b,), prefix, _FAILS)}
    return shapes


def _single(tree: Any, repeated: bool = False) -> Iterator[Callable[[str], bool]]:
    """A test for each part of the expression that takes one character; literals count where they are repeated."""
    for kind, value in tree:
        if kind in (op.IN, op.ANY, op.NOT_LITERAL) or (kind is op.LITERAL and repeated):
            yield lambda c, kind=kind, value=value: _takes(kind, value, c)
        for inner, again in _inside(kind, value):
            yield from _single(inner, repeated or again)


def _inside(kind: Any, value: Any) -> list[tuple[Any, bool]]:
    """The expressions inside one part, each with whether it is repeated without a limit."""
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return [(value[2], value[1] > 30)]
    if kind is op.SUBPATTERN:
        return [(value[-1], False)]
    if kind is op.BRANCH:
        return [(branch, False) for branch in value[1]]
    if kind in (op.ASSERT, op.ASSERT_NOT):
        return [(value[1], False)]
    return [(value, False)] if kind is op.ATOMIC_GROUP else []


def _takes(kind: Any, value: Any, c: str) -> bool:
    if kind is op.LITERAL:
        return bool(ord(c) == value)
    if kind is op.NOT_LITERAL:
        return bool(ord(c) != value)
    if kind is op.ANY:
        return c != "\n"
    negated = value[0][0] is op.NEGATE
    return negated != any(_in_class(part, given, c) for part, given in value if part is not op.NEGATE)


def _in_class(kind: Any, value: Any, c: str) -> bool:
    if kind is op.LITERAL:
        return bool(ord(c) == value)
    if kind is op.RANGE:
        return bool(value[0] <= ord(c) <= value[1])
    tests = {"DIGIT": c.isdecimal(), "SPACE": c.isspace(), "WORD": c.isalnum() or c == "_"}
    name = str(value).removeprefix("CATEGORY_")
    return not tests[name.removeprefix("NOT_")] if name.startswith("NOT_") else tests[name]


def _literals(tree: Any) -> set[str]:
    found = {chr(value) for kind, value in tree if kind is op.LITERAL}
    for kind, value in tree:
        if kind is op.IN:
            found |= {chr(given if part is op.LITERAL else given[0]) for part, given in value if part in (op.LITERAL, op.RANGE)}
        for inner, _ in _inside(kind, value):
            found |= _literals(inner)
    return found


def _witness(tree: Any) -> str:
    """A short text that the expression takes, but for its assertions."""
    return "".join(_shortest(kind, value) for kind, value in tree)


def _shortest(kind: Any, value: Any) -> str:
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return _witness(value[2]) * int(value[0])
    if kind is op.BRANCH:
        return _witness(value[1][0])
    if kind is op.ASSERT and value[0] < 0:
        return _witness(value[1])
    if kind in (op.SUBPATTERN, op.ATOMIC_GROUP):
        return _witness(value[-1] if kind is op.SUBPATTERN else value)
    if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
        own = chr(value) if kind is op.LITERAL else ""
        return next((c for c in own + _POOL if _takes(kind, value, c)), "")
    return ""


def _prefixes(tree: Any, before: str = "") -> Iterator[str]:
    """What leads up to each repeat without a limit, and through one turn of it."""
    for kind, value in tree:
        for inner, repeated in _inside(kind, value):
            if repeated:
                yield before
                yield before + _witness(inner)
            yield from _prefixes(inner, before)
        before += _shortest(kind, value)
