"""How a command begins, and how it ends on an error. One place for `matinee`, `serve`, `train`, and the tools.

It writes files for its user alone. An error is a message on stderr, and an exit code.

Does not catch bugs: an error that nobody explains keeps its traceback. What the machine refuses is no bug: a folder that can't be written,
a full disk, a file that is gone.
"""

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from matinee.errors import MatineeError
from matinee.files import keep_private


def write_any_text() -> None:
    """Let stdout and stderr write every character: one that the terminal's encoding lacks as an escape, instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def explain_errors(*others: type[Exception], exit_code: int | None = None, private: bool = True) -> Iterator[None]:
    """Print a `MatineeError`, or one of `others`, and exit with its own code or `exit_code`. Also a decorator of a command.

    Keys, events, vectors, and what users wrote are in the files of most commands. Without `private`, files have the usual mode.
    """
    explained: tuple[type[Exception], ...] = (MatineeError, *others)
    write_any_text()
    if private:
        keep_private()
    try:
        yield
    except explained as error:
        print_error(error)
        raise typer.Exit(getattr(error, "exit_code", 1) if exit_code is None else exit_code) from None
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        print_error(MachineError(error))
        raise typer.Exit(1 if exit_code is None else exit_code) from None


def run_main(main: Callable[[], None]) -> None:
    """Run a tool that reads its options by itself: an error ends it as it ends a command. Its files have the usual mode.

    SIGTERM lets it clean up: a server that it started would go on without it.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with explain_errors(private=False):
            main()
    except typer.Exit as error:
        raise SystemExit(error.exit_code) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class MachineError(MatineeError):
    """What the operating system refused: a file or a folder, and its reason."""

    def __init__(self, error: OSError) -> None:
        where = f"{error.filename}: " if error.filename else ""
        super().__init__(
            f"{where}{error.strerror or error}: check that it exists, that this user may read and write it, and that the disk has room"
        )


def print_error(error: Exception) -> None:
    """The message, and below it the items that an ambiguous title may mean."""
    # A message may hold brackets (a title, a path, an IPv6 address), which rich would take for markup.
    lines = [f"[red]error[/]: {escape(str(error))}"]
    for candidate in getattr(error, "candidates", ()):
        year = f" ({candidate['year']})" if candidate.get("year") else ""
        lines.append(escape(f"  {candidate['title']}{year}  {candidate['id']}"))
    console = Console(stderr=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
