"""What the documents say is what the code does: the settings page, the README's table of metrics, its commands and its links."""

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from matinee.cli.main import app
from serve.telemetry.metrics import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_metric() -> None:
    assert table() in README, "put the output of serve.telemetry.metrics.table() into the README"


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
