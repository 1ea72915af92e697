"""Errors name flags that exist: every `--flag` in a message that a command can print is a flag of that command.

Messages are read from the code: what is given to an exception, in the command's module and in all modules that it imports. A flag in
backticks is part of another command, which the message names with it (the tests of the pages check those).

Every option and every argument has a help of at least three words, which names what it sets.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import typer

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("matinee", "serve", "train")
    for path in (ROOT / top).rglob("*.py")
}
TYPER = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for top in ("matinee", "observability", "serve", "train")
    for path in sorted((ROOT / top).rglob("*.py"))
    if re.search(r"^app = ", path.read_text("utf-8"), re.MULTILINE)
]
ARGPARSE = [
    path for top in ("bench", "helm") for path in sorted((ROOT / top).rglob("*.py")) if "ArgumentParser(" in path.read_text("utf-8")
]
JOBS = [
    name for name, path in MODULES.items() if name.count(".") == 1 and name.startswith("train.") and "app = " in path.read_text("utf-8")
]
STARTED = {"train.pipeline": ("train.prepare",)}
"""What a command starts as a process, with options of its own that it hands on."""
OF_ITS_CALLER = {
    # A message of a shared module about an option that only some of its callers have, and that only those can bring about.
    "matinee.client.models": {"--catalogue"},
    "train.ingesting.plan": {"--via"},
    "train.jobs.indexing": {"--via", "--url"},
    "train.jobs.command": {"--map"},
    "train.syncing.source": {"--deleted"},
    "train.syncing.sql": {"--cursor"},
    "train.human.rating_sheets": {"--items", "--rater", "--split"},
    "train.embedding.contrastive": {"--loss", "--matryoshka", "--negatives"},
    # Typed behind `--`, for the training.
    "train.pipeline": {"--seed"},
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        names = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        yield from (name for name in names if name in MODULES)


def reachable(module: str) -> set[str]:
    """A command's module, what it imports, and what that imports."""
    found: set[str] = set()
    todo = [module, *STARTED.get(module, ())]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += imported(name)
    return found


def text_of(node: ast.AST) -> str:
    """The constant parts of a message, in their order."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        return " "
    return "".join(text_of(child) for child in ast.iter_child_nodes(node))


@cache
def flags_of_messages(module: str) -> frozenset[str]:
    """Those in what a module gives to exceptions."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name.endswith(("Error", "BadParameter")):
                for argument in node.args:
                    found |= set(re.findall(r"--[a-z][a-z-]*[a-z]", re.sub(r"`[^`]*`", "", text_of(argument))))
    return frozenset(found)


def options_of(command: click.Command) -> set[str]:
    """The flags in the help of a command and of its subcommands."""
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options_of(sub) for sub in getattr(command, "commands", {}).values()))


def click_command(module: str) -> click.Command:
    command: click.Command = typer.main.get_command(importlib.import_module(module).app)
    return command


@pytest.mark.parametrize("module", [*sorted(JOBS), "serve.__main__", "serve.probe.__main__"])
def test_errors_name_flags_that_the_command_has(module: str) -> None:
    known = options_of(click_command(module)) | {"--help"}
    for source in sorted(reachable(module)):
        missing = flags_of_messages(source) - known - OF_ITS_CALLER.get(source, set())
        assert not missing, f"{module}: an error of {source} names {', '.join(sorted(missing))}"


def test_errors_name_flags_that_commands_of_matinee_have() -> None:
    main = click_command("matinee.cli.main")
    known = options_of(main) | {"--help"}
    for name in sorted(MODULES):
        if name.startswith("matinee.cli"):
            missing = flags_of_messages(name) - known - OF_ITS_CALLER.get(name, set())
            assert not missing, f"an error of {name} names {', '.join(sorted(missing))}"


def helps_of(command: click.Command) -> Iterator[tuple[str, str]]:
    """The name and the help of each argument and option of a command and of its subcommands."""
    for parameter in command.params:
        if not getattr(parameter, "hidden", False) and parameter.name != "help":
            yield parameter.opts[0], getattr(parameter, "help", None) or ""
    for subcommand in getattr(command, "commands", {}).values():
        yield from helps_of(subcommand)


def says_something(text: str) -> bool:
    """Three words or more, that do not lean on the option's name: `of the split` does not say what of it."""
    return len(text.split()) >= 3 and not re.match(r"(as|its|of) ", text)


@pytest.mark.parametrize("module", TYPER)
def test_each_option_and_argument_has_a_help_that_says_something(module: str) -> None:
    for name, text in helps_of(click_command(module)):
        assert says_something(text), f"{module} {name}: {text!r}"


@pytest.mark.parametrize("path", ARGPARSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_option_of_a_tool_has_a_help_that_says_something(path: Path) -> None:
    """Read from the code: most tools of `bench` import what only a measurement needs."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
    ]
    assert calls
    for call in calls:
        text = next((text_of(keyword.value) for keyword in call.keywords if keyword.arg == "help"), "")
        assert says_something(text), f"{path.name} {text_of(call.args[0])}: {text!r}"


def test_the_search_finds_flags_in_messages() -> None:
    assert "--delimiter" in flags_of_messages("matinee.catalogue.dialects")
    assert "matinee.catalogue.dialects" in reachable("train.pipeline")
    assert {"--map", "--date-order"} <= options_of(click_command("train.prepare"))
