"""One name, one thing: no two classes or types of the product share a name, and names are words of the field."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOPS = ("matinee", "serve", "train", "bench", "helm", "observability")
TERMS = {
    "forensics": "explain",
    "likeness": "similarity",
    "mend": "repair",
    "mended": "repaired",
    "news": "what is new, by its name",
    "patiently": "retry",
    "rehearse": "dry run",
    "says": "description",
    "stand": "sandbox",
    "survey": "propose, infer or detect",
    "surveyed": "stats",
    "told": "what it holds",
    "visit": "request",
    "wanted": "what it holds",
    "weigh": "measure or record",
    "wish": "predicate, request or query",
}
"""Words that needed explaining, and what the field calls them."""


def test_no_two_classes_or_types_have_one_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in (path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))):
        for name in types_in(ast.parse(path.read_text(encoding="utf-8"))):
            found[name].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def types_in(tree: ast.Module) -> Iterator[str]:
    """A module's classes and the names it gives to types: `Title = Annotated[str, ...]`.

    A type variable is named anew in each module, and an option of a command line as it is typed.
    """
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                text = ast.unparse(value)
                if re.match(r"[A-Z]\w*[a-z]", name) and not re.match(r"TypeVar|ParamSpec|Annotated\[.*typer\.(Option|Argument)\(", text):
                    yield name


def test_a_type_is_found_and_an_option_is_none() -> None:
    options = "Json = Annotated[bool, typer.Option('--json')]\nTop = TypeVar('Top')\nMOST = 3\n"
    text = f"class A: ...\nTitle = Annotated[str, Field(max_length=9)]\n{options}"
    assert list(types_in(ast.parse(text))) == ["A", "Title"]


def test_names_are_words_of_the_field() -> None:
    private = [
        f"{path.relative_to(ROOT).as_posix()}: {name}; write: {TERMS[word]}"
        for path in (path for top in TOPS for path in sorted((ROOT / top).rglob("*.py")))
        for name in {path.stem, *names_in(ast.parse(path.read_text(encoding="utf-8")))}
        for word in words_of(name)
        if word in TERMS
    ]
    assert sorted(private) == []


def names_in(tree: ast.AST) -> Iterator[str]:
    """What a module names: classes, functions, parameters, variables and attributes that it sets."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words_of(name: str) -> list[str]:
    """`RankedItems`, `ranked_items` and `RANKED_ITEMS` -> ranked, items."""
    return [word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def test_a_private_word_is_found_in_any_spelling() -> None:
    names = set(names_in(ast.parse("class _Visit:\n    def _weigh(self, wish): self.mended_at = 1\nSAYS = likeness = 2\n")))
    assert {word for name in names for word in words_of(name)} >= {"visit", "weigh", "wish", "mended", "says", "likeness"}
    assert not set(words_of("StandardLayer")) & TERMS.keys()
