"""`train.pipeline`: every step is a command that exists, and reads what the one before has written."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from matinee.errors import SettingsError
from train import pipeline

EVERYTHING = ("films.csv", "--kind", "film", "--sets", "EVAL", "--seeds", "2", "--smoke", "--out", "work")


class Started:
    """Stands for the processes: notes their commands, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self._fails = fails

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, "-m"]
        self.commands.append(command[2:])
        return subprocess.CompletedProcess(command, 4 if command[2] == self._fails else 0)


def run(monkeypatch: pytest.MonkeyPatch, *args: str, fails: str = "") -> tuple[int, list[list[str]]]:
    started = Started(fails)
    monkeypatch.setattr(pipeline.subprocess, "run", started)
    return CliRunner().invoke(pipeline.app, args).exit_code, started.commands


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("films.csv", "--out", "work", "--cpu"), ["prepare", "triplets", "embedder", "evaluate"]),
        (("--smoke",), ["prepare", "triplets", "embedder", "evaluate"]),
        (EVERYTHING, ["prepare", "triplets", "embedder", "embedder", "soup", "evaluate"]),
        ((*EVERYTHING, "--", "--loss", "triplet", "--negatives"), ["prepare", "triplets", "embedder", "embedder", "soup", "evaluate"]),
    ],
)
def test_every_step_is_a_command_that_reads_what_was_written(
    monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], expected: list[str]
) -> None:
    code, commands = run(monkeypatch, *args)
    assert code == 0
    assert [name.removeprefix("train.") for name, *_ in commands] == expected
    written: set[Path] = set()
    for name, *words in commands:
        # Refuses an option that the job does not have.
        given = get_command(import_module(name).app).make_context(name, list(words)).params
        assert name != "train.prepare" or (given["source"] is None) == given["smoke"]
        read = {name: given.get(name) for name in ("prepared", "triplets", "after")} | dict(enumerate(given.get("members") or ()))
        assert all(Path(path) in written for path in read.values() if path is not None)
        assert given["out"] not in written
        written |= {given["out"], given["out"] / "model"}
        if name == "train.embedder":
            assert given["gpu"] is (False if "--cpu" in args else None)
        if name == "train.embedder" and "--" in args:
            assert (given["loss"], given["negatives"]) == ("triplet", True)
        if name == "train.triplets":
            assert given["negatives"] == ("both" if "--" in args else "none")
    seeds = [words[words.index("--seed") + 1] for name, *words in commands if name == "train.embedder"]
    assert seeds == [str(seed) for seed in range(len(seeds))]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_bundled_films_become_a_report_and_nothing_is_done_twice(
    start: Callable[..., Any], tiny_encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    """All the way, of 40 pairs, for time: a random encoder in this process, and the real one with a process of its own for each step."""
    out, home, said = tmp_path / "out", tmp_path / "home", list[str]()
    if not real:
        monkeypatch.setenv("MATINEE_EMBEDDER__MODEL", str(tiny_encoder.save(tmp_path / "encoder")))

    def here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(import_module(command[2]).app, command[3:])
        said.append(done.stderr)
        return subprocess.CompletedProcess(command, done.exit_code)

    def in_this_process() -> None:
        with monkeypatch.context() as patch:
            # Its own alone: the steps start processes too, such as git.
            patch.setattr(pipeline, "subprocess", SimpleNamespace(run=here))
            patch.setenv("MATINEE_HOME", str(home))
            done = CliRunner().invoke(pipeline.app, ["--smoke", "--count", "40", "--cpu", "--out", str(out), "--", "--workers", "0"])
        assert done.exit_code == 0, (done.output, said)

    if real:
        code, err = start("pipeline", out, "--smoke", "--count", 40, "--cpu", home=home).finish()
        assert code == 0, err[-3000:]
    else:
        in_this_process()
    found = json.loads((out / "report" / "report.json").read_text())
    assert found["models"]["after"]["model"] == str(out / "embedder" / "model")
    assert found["models"]["after"]["fingerprint"] != found["models"]["before"]["fingerprint"]
    assert {"before", "after", "BM25"} <= {row["system"] for row in found["table1"]}
    assert (out / "report" / "report.html").read_text().count("<svg") == 2
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    said.clear()
    in_this_process()
    assert "".join(said).count("complete already") == 4
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == made


def test_options_of_the_training_need_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    code, commands = run(monkeypatch, "--smoke", "--", "--lora", "16")
    assert code == 0
    assert commands[0][:2] == ["train.prepare", "--smoke"]
    [trained] = [words for name, *words in commands if name == "train.embedder"]
    assert trained[trained.index("--lora") + 1] == "16"


def test_a_step_that_fails_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    code, commands = run(monkeypatch, "films.csv", fails="train.triplets")
    assert code == 4
    assert [name for name, *_ in commands] == ["train.prepare", "train.triplets"]


@pytest.mark.parametrize("base", [("--base", "hub:a/b"), ("--base=hub:a/b",)])
@pytest.mark.parametrize("loss", [("--loss", "triplet"), ("--loss=triplet",), ("--negatives",)])
def test_what_training_is_told_the_other_steps_follow(
    monkeypatch: pytest.MonkeyPatch, base: tuple[str, ...], loss: tuple[str, ...]
) -> None:
    code, commands = run(monkeypatch, "films.csv", "--", *base, *loss)
    assert code == 0
    params = {name: get_command(import_module(name).app).make_context(name, list(words)).params for name, *words in commands}
    assert params["train.evaluate"]["before"] == params["train.embedder"]["base"] == "hub:a/b"
    assert params["train.triplets"]["negatives"] == "both"


def test_what_is_drawn_goes_to_triplets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ("--count", "20000", "--descriptions", "words.jsonl", "--weight", "related=1", "--weight", "genre=0")
    code, commands = run(monkeypatch, "films.csv", *drawn, "--seeds", "2", "--", "--loss", "triplet")
    assert code == 0
    [words] = [words for name, *words in commands if set(drawn[::2]) & set(words)]
    given = get_command(import_module("train.triplets").app).make_context("train.triplets", list(words)).params
    assert (given["count"], given["descriptions"], given["weight"]) == (20000, Path("words.jsonl"), ["related=1", "genre=0"])
    assert given["negatives"] == "both"


def test_the_papers_recipe_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the docstring has it, and as README has it step by step."""
    [line] = [line for line in (pipeline.__doc__ or "").splitlines() if "as in the paper" in line]
    code, commands = run(monkeypatch, *shlex.split(line, comments=True)[3:])
    assert code == 0
    params = {name: get_command(import_module(name).app).make_context(name, list(words)).params for name, *words in commands}
    assert (params["train.triplets"]["negatives"], params["train.triplets"]["weight"]) == ("both", ["related=1"])
    tuned = params["train.embedder"]
    assert (tuned["loss"], tuned["negatives"], tuned["epochs"], tuned["batch"], tuned["lr"]) == ("triplet", True, 5, 16, 3e-5)


@pytest.mark.parametrize("wrong", [("--epoch", "3"), ("--loss", "tripplet"), ("--epochs", "0"), ("stray",)])
def test_a_wrong_option_of_the_training_stops_before_the_first_step(monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...]) -> None:
    code, commands = run(monkeypatch, "films.csv", "--", *wrong)
    assert (code != 0, commands) == (True, [])


def test_a_seed_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "films.csv", "--", "--seed", "7") == (SettingsError.exit_code, [])
