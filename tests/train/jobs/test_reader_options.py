"""The reader's options: what one job was told, it tells the next as a command line."""

from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from train import pipeline, prepare, soup
from train.embedder import EmbedderOptions
from train.jobs import command
from train.jobs.reader_options import DEFAULTS, ReaderOptions

ALL = ReaderOptions(
    kind="film", map=["overview=Plot", "title=- Name"], delimiter="-", quote="none", encoding="cp1252", date_order="dmy", decimal=",",
    pivot=30, strict=True,
)  # fmt: skip


@pytest.mark.parametrize("reading", [DEFAULTS, ReaderOptions(pivot=0), ReaderOptions(strict=True), ALL])
def test_the_words_of_a_reading_are_read_as_the_same_one(reading: ReaderOptions) -> None:
    values = get_command(prepare.app).make_context("prepare", ["films.csv", *command.words(reading)]).params
    assert command.build(ReaderOptions, values) == reading


@pytest.mark.parametrize("hardware", [command.Hardware(), command.Hardware(gpu=False, threads=3), command.Hardware(gpu=True, workers=0)])
def test_the_words_of_the_hardware_are_read_as_the_same(hardware: command.Hardware) -> None:
    assert command.parse(EmbedderOptions, ["triplets", *command.words(hardware)], "train.embedder").hardware == hardware


def test_all_options_are_in_the_example() -> None:
    assert all(getattr(ALL, one.name) != getattr(DEFAULTS, one.name) for one in fields(ReaderOptions))


def test_the_pipeline_hands_every_option_of_the_reader_on() -> None:
    values = get_command(pipeline.app).make_context("pipeline", ["~films.csv", *command.words(ALL), "--out", "work"]).params
    options = command.build(pipeline.PipelineOptions, values)
    assert pipeline.steps(options)[0] == ["prepare", "~films.csv", *command.words(ALL), "--out", "work/prepared"]


def test_a_folder_of_the_home_that_the_shell_did_not_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    values = get_command(soup.app).make_context("soup", ["~/one", "two", "--out=~/soup"]).params
    options = command.build(soup.SoupOptions, values)
    assert (options.members, options.out) == ([tmp_path / "one", Path("two")], tmp_path / "soup")
