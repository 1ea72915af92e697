"""`matinee ingest` and `matinee sync`: start the jobs `train.ingest` and `train.sync` as processes, which have the options and the help."""

import subprocess
import sys

import typer

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Everything, `--help` included, goes to the job."""


def ingest(context: typer.Context) -> None:
    """Turn a catalogue file into a new index version and switch to it. See [bold]matinee ingest --help[/].

    [dim]matinee ingest films.csv --kind film[/]
    """
    _run("train.ingest", context)


def sync(context: typer.Context) -> None:
    """Keep a running server's catalogue as files, a bucket or a SQL query have it. See [bold]matinee sync --help[/].

    [dim]matinee sync films.csv --kind film --dry-run[/]
    """
    _run("train.sync", context)


def _run(job: str, context: typer.Context) -> None:
    command = [sys.executable, "-m", job, *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603
