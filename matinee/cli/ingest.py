"""`matinee ingest`: starts the job `train.ingest` as a process, which has the options and the help."""

import subprocess
import sys

import typer

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Everything, `--help` included, goes to the job."""


def ingest(context: typer.Context) -> None:
    """Turn a catalogue file into a new index version and switch to it. See [bold]matinee ingest --help[/].

    [dim]matinee ingest films.csv --kind film[/]
    """
    command = [sys.executable, "-m", "train.ingest", *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603
