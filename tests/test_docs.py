"""What the documents say is what the code does: the settings page, the README's table of metrics, its commands and its links."""

import re
import shlex
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from matinee.cli.main import app
from serve.telemetry.declare import table
from serve.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_metric() -> None:
    assert table(Metrics) in README, "put the output of serve.telemetry.declare.table(Metrics) into the README"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:^|`)matinee ([a-z]+)", README, re.MULTILINE))))
def test_the_readme_names_only_commands_that_exist(command: str) -> None:
    assert command in get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^python -m (train\.[^\n]*)", README, re.MULTILINE))))
def test_the_readmes_jobs_take_what_it_gives_them(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    command: Any = get_command(import_module(name).app)
    if hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(name, words)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_the_readme_links_to_files_that_exist(target: str) -> None:
    assert "://" in target or (ROOT / target).exists()


TEXTS = sorted(path for pattern in ("*.md", "docs/*.md", "k8s/**/*.md", "helm/matinee/*.md") for path in ROOT.glob(pattern))
CODE = sorted(
    path for folder in ("matinee", "serve", "train", "bench", "observability", "helm", "k8s") for path in (ROOT / folder).rglob("*.py")
)
# `matinee.models.convert` or `matinee.models.convert.once`, with or without `python -m` in front.
_MODULE = re.compile(
    r"`(?:python -m )?((?:matinee|serve|train|bench|observability)(?:\.[a-z]\w*)+)(?!\w|\.[A-Za-z])(?<!\.jsonl)[^`\n]{0,200}`"
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def resolves(dotted: str) -> bool:
    """Whether it names a module, or an attribute (of an attribute) of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()):
            continue
        with warnings.catch_warnings():
            # Ray's own, at its first import.
            warnings.simplefilter("ignore")
            found: Any = import_module(".".join(parts[:length]))
        for name in parts[length:]:
            found = getattr(found, name, None)
            if found is None:
                return False
        return True
    return False


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_that_a_text_names_exists(path: Path) -> None:
    named = set(_MODULE.findall(path.read_text(encoding="utf-8")))
    assert not sorted(dotted for dotted in named if not resolves(dotted))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    targets = {
        target for target in _LINK.findall(path.read_text(encoding="utf-8")) if "://" not in target and not target.startswith("mailto:")
    }
    assert not sorted(target for target in targets if not (path.parent / target).exists())
