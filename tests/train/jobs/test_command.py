"""`train.jobs.command`: an options model is the command line, and its fields are the only place where an option is declared."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from matinee.errors import ModelError, SettingsError
from train.jobs import command

TRAIN = Path(command.__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Training:
    loss: Annotated[Literal["mnr", "triplet"], typer.Option(help="the loss")] = "mnr"
    batch_size: Annotated[int, typer.Option(min=2)] = 8
    fixed: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Options:
    folder: Annotated[str, typer.Argument()]
    training: Training
    title: Annotated[list[str], typer.Option()] = field(default_factory=list)
    gpu: command.Gpu = None


def run(*args: str, fails: Exception | None = None) -> tuple[Result, list[Options]]:
    calls: list[Options] = []

    def job(options: Options) -> None:
        """What it does."""
        calls.append(options)
        if fails:
            raise fails

    return CliRunner().invoke(command.job_app(Options, job), list(args)), calls


def test_defaults_are_the_models_own() -> None:
    assert run("work")[1] == [Options(folder="work", training=Training())]


def test_options_of_a_nested_model_are_options_of_the_job() -> None:
    args = ("work", "--loss", "triplet", "--batch-size", "4", "--title", "Alien", "--title", "Heat", "--cpu")
    expected = Options(folder="work", training=Training(loss="triplet", batch_size=4), title=["Alien", "Heat"], gpu=False)
    assert run(*args)[1] == [expected]


def test_the_help_names_each_option_but_what_is_fixed() -> None:
    text = run("--help")[0].stdout
    assert all(words in text for words in ("What it does.", "--loss", "the loss", "--batch-size", "x>=2"))
    assert "--fixed" not in text


def test_a_model_may_fix_what_its_base_has_as_options() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Tuning(Training):
        FIXED: ClassVar = ("loss",)

    assert [parameter.name for parameter in command.parameters(Tuning)] == ["batch_size"]
    assert command.build(Tuning, {"batch_size": 4}) == Tuning(batch_size=4)


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--loss", "best"), "error: --loss best: use mnr, triplet"), (("--batch-size", "1"), "greater than or equal to 2"), ((), None)],
)
def test_wrong_values_are_refused(args: tuple[str, ...], message: str | None) -> None:
    result, calls = run(*(("work", *args) if message else args))
    assert (result.exit_code, calls) == (SettingsError.exit_code, [])
    assert message is None or message in result.stderr


def test_an_error_is_one_line_and_an_exit_code() -> None:
    result, _ = run("work", fails=ModelError("no [weights] here"))
    assert (result.exit_code, result.stderr) == (ModelError.exit_code, "error: no [weights] here\n")
    assert run("work", fails=KeyboardInterrupt())[0].exit_code == 130  # type: ignore[arg-type]


def test_a_message_keeps_brackets_and_may_stress_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    command.echo("in work/[v1]/out; next: ", ("train.evaluate --after work/[v1]/[/]", "bold"))
    assert capsys.readouterr().err == "in work/[v1]/out; next: train.evaluate --after work/[v1]/[/]\n"


def test_no_job_still_echoes_markup() -> None:
    """`echo` prints it as it stands, so users would see it."""
    echoes = [line for path in TRAIN.rglob("*.py") for line in path.read_text("utf-8").splitlines() if "command.echo(" in line]
    assert len(echoes) > 20
    assert not [line for line in echoes if re.search(r"\[/?(?:bold|dim|red|yellow|)\]|escape\(", line)]
