"""Each example's README runs as it stands: the commands work, and the answers contain the titles that it names."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from matinee.cli.main import app

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name", [pytest.param("books", marks=pytest.mark.full), pytest.param("films", marks=pytest.mark.full), "groceries"]
)
def test_the_commands_of_an_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groceries, which are the least like films, in every run."""
    monkeypatch.chdir(ROOT)
    models = Path.home() / ".matinee" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (tmp_path / "models").symlink_to(models)
    env = {"MATINEE_HOME": str(tmp_path), "COLUMNS": "250"}
    [block] = re.findall(r"```sh\n(.*?)```", (ROOT / "examples" / name / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        command, _, title = line.partition(" # ")
        words = shlex.split(command)
        if words[0] == "export":
            env |= [words[1].split("=")]
            continue
        assert words[0] == "matinee"
        done = CliRunner().invoke(app, words[1:], env=env)
        assert done.exit_code == 0, done.output
        assert title.strip() in done.stdout, done.output
