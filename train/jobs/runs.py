"""What every training job shares: its output folder, its manifest with hashes, resuming a finished step, errors as one line.

A manifest is written last and atomically: where it is, the folder is complete and its files are what they were. Knows no job in particular.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import typer
from rich.console import Console

from matinee.cli.errors import explain_errors
from matinee.errors import SourceError
from matinee.files import sha256, write_atomically

P = ParamSpec("P")

MANIFEST = "manifest.json"
ADAPTER, MODEL = "enhancer-lora", "model"
RESULTS = (ADAPTER, MODEL)
"""Folders that are a job's result. Others hold what can be made again, or what a run goes on from."""

console = Console(stderr=True)


def git_commit() -> str | None:
    """The commit of the code that runs, with `-dirty` where files differ; None outside a checkout (an image names its own)."""
    root = Path(__file__).parents[2]

    def ask(*args: str) -> str:
        found = subprocess.run(["git", "-C", str(root), *args], check=True, capture_output=True, text=True)  # noqa: S603, S607
        return found.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return f"{commit}-dirty" if ask("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT") or None


def hashes(paths: Iterable[Path], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256(path) for path in sorted(paths)}


def write_manifest(folder: Path, job: str, settings: Mapping[str, Any], inputs: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """The last file of a job's folder: what made it, from what, and the sha256 of every other file of its result."""
    results = [path for path in folder.iterdir() if path.name in RESULTS or path.is_file()]
    files = (
        file for path in results for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file() and path.name != MANIFEST
    )
    outputs = hashes(files, folder)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest: dict[str, Any] = {"job": job, "settings": dict(settings), "inputs": dict(inputs), "outputs": outputs}
    manifest |= {"git_commit": git_commit(), "created": created, **more}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, default=str))
    return manifest


def read_manifest(folder: Path, job: str) -> dict[str, Any]:
    """The manifest of a folder that `job` has finished, its files checked. Raises `SourceError` where it is not."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise SourceError(f"{folder} has no manifest: run `python -m train.{job}` (again), it did not finish there") from None
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON: {error}") from None
    if manifest.get("job") != job:
        raise SourceError(f"{folder} was made by train.{manifest.get('job')}, not by train.{job}")
    for name, digest in manifest["outputs"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise SourceError(f"{folder / name} is not what its manifest says: run `python -m train.{job}` again")
    return manifest


def finished(folder: Path, job: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the same job with the same settings on the same inputs has finished here before."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = read_manifest(folder, job)
    except SourceError:
        # Of another job, or changed since: it is made anew.
        return False
    as_json = json.loads(json.dumps(dict(settings), default=str))
    return bool(manifest["settings"] == as_json and manifest["inputs"] == dict(inputs))


@contextmanager
def followed(log: Path) -> Iterator[None]:
    """Shows the rows that are added to a JSONL file, whoever writes them (a worker, perhaps on another machine)."""
    stop = threading.Event()

    def follow() -> None:
        shown = log.stat().st_size if log.is_file() else 0
        last = False
        while not last:
            last = stop.wait(1)
            if not log.is_file():
                continue
            with log.open(encoding="utf-8") as file:
                file.seek(shown)
                # A row that is only half written is shown when it is whole.
                text = file.read().rpartition("\n")[0]
            shown += len(text.encode()) + bool(text)
            for row in filter(None, text.split("\n")):
                console.print(row, highlight=False, soft_wrap=True, markup=False)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def explained(command: Callable[P, None]) -> Callable[P, None]:
    """Errors as one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with explain_errors():
                command(*args, **kwargs)
        except KeyboardInterrupt:
            console.print("interrupted: run the same command again to go on")
            raise typer.Exit(130) from None

    return run


def job_app(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command(help=command.__doc__)(explained(command))
    return app
