"""`matinee.cli.errors`: every entry point prints an error whole, brackets included, and exits with the error's code."""

import importlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import typer
from typer.testing import CliRunner

from matinee.cli.errors import explain_errors, run_main
from matinee.client.http import ServerError
from matinee.errors import AmbiguousTitleError, SettingsError
from train.jobs.command import job_app

MESSAGE = "no [bold]such[/x] thing as [/tmp/a b] or [red]"

ENTRIES = {
    "matinee info": ("matinee.cli.main", "matinee.cli.search.load_settings", ["info"], 2),
    "matinee index list": ("matinee.cli.main", "matinee.cli.search.load_settings", ["index", "list"], 2),
    "matinee models list": ("matinee.cli.main", "matinee.cli.models.load_settings", ["models", "list"], 2),
    "matinee evalset make": ("matinee.cli.main", "matinee.cli.evalset.read_entries", ["evalset", "make", "x", "--field", "y"], 2),
    "matinee.cli.demo_descriptions": ("matinee.cli.demo_descriptions", "matinee.cli.demo_descriptions.load_settings", [], 2),
    "matinee demo": ("matinee.cli.main", "matinee.cli.demo.load_settings", ["demo"], 2),
    "serve": ("serve.__main__", "serve.__main__.load_settings", [], 2),
    "serve check": ("serve.__main__", "serve.__main__.load_settings", ["check"], 2),
    "serve.probe": ("serve.probe.__main__", "serve.probe.__main__.load_settings", ["--once"], 2),
    "train.ingest": ("train.ingest", "train.ingest.load_settings", ["x.csv"], 2),
    "observability.observe": ("observability.observe", "observability.observe.load_settings", [], 2),
    "observability.pictures": ("observability.pictures", "observability.pictures.draw", ["x"], 2),
}


def fail(*_: object, **__: object) -> NoReturn:
    raise SettingsError(MESSAGE)


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_entry_point_prints_brackets_as_they_are(entry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, failing, args, exit_code = ENTRIES[entry]
    app = importlib.import_module(module).app
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(failing, fail)
    result = CliRunner().invoke(app, args)
    assert (result.exit_code, result.stderr) == (exit_code, f"error: {MESSAGE}\n")


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_entry_point_writes_files_for_its_user_alone(entry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        test_each_entry_point_prints_brackets_as_they_are(entry, monkeypatch, tmp_path)
        # Models, pictures of dashboards, and files of this repository.
        assert os.umask(before) == (0o022 if entry in ("serve check", "observability.pictures", "matinee.cli.demo_descriptions") else 0o077)
    finally:
        os.umask(before)


def test_a_job_prints_brackets_as_they_are() -> None:
    @dataclass(frozen=True)
    class Options:
        pass

    result = CliRunner().invoke(job_app(Options, lambda _: fail()), [])
    assert (result.exit_code, result.stderr) == (2, f"error: {MESSAGE}\n")


def test_an_unknown_scope_is_printed_as_it_is() -> None:
    result = CliRunner().invoke(importlib.import_module("serve.__main__").app, ["key", "x", "--scope", "[red]"])
    assert result.exit_code == 2
    assert "unknown scope [red]: use " in result.stderr


@pytest.mark.parametrize("kind", [AmbiguousTitleError, ServerError])
def test_the_candidates_of_a_title_stand_below_the_message(kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    candidates = [{"title": "[Heat]", "year": 1995, "id": "a"}, {"title": "Heat", "id": "b"}]
    error = ServerError("which?", candidates=candidates) if kind is ServerError else AmbiguousTitleError("which?", list(candidates))
    with pytest.raises(typer.Exit), explain_errors():
        raise error
    assert capsys.readouterr().err == "error: which?\n  [Heat] (1995)  a\n  Heat  b\n"


def test_other_errors_are_named_and_bugs_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as exit, explain_errors(OSError, exit_code=4):
        raise OSError("[disk]")
    assert (exit.value.exit_code, capsys.readouterr().err) == (4, "error: [disk]\n")
    with pytest.raises(ZeroDivisionError), explain_errors(OSError):
        _ = 1 / 0


def test_a_tool_ends_as_a_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run_main(fail)
    assert (exit.value.code, capsys.readouterr().err) == (2, f"error: {MESSAGE}\n")


def test_a_tool_that_is_told_to_end_cleans_up_first() -> None:
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit:
        run_main(work)
    assert (exit.value.code, cleaned, signal.getsignal(signal.SIGTERM)) == (143, [True], before)
