"""A job's `manifest.json`: what made the folder, from what, and the sha256 of every file of its result.

It is written last and atomically. If it is there, the folder is complete and its files are what they were. Knows no job in particular.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matinee.errors import SourceError
from matinee.evaluation.query_sets import set_files
from matinee.files import sha256, write_atomically

MANIFEST = "manifest.json"
ADAPTER, MODEL = "enhancer-lora", "model"
RESULTS = (ADAPTER, MODEL)
"""Folders that are a job's result. Others hold caches, or what a run goes on from."""


def git_commit() -> str | None:
    """The commit of the code that runs, with `-dirty` where files differ; None outside a checkout (an image names its own)."""
    root = Path(__file__).parents[2]

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], check=True, capture_output=True, text=True)  # noqa: S603, S607
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT") or None


def reopen(folder: Path) -> None:
    """Begin a new result in a folder: from here on, it is not what its manifest says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)


def hashes(paths: Iterable[Path], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256(path) for path in sorted(paths)}


def set_hashes(folder: Path | None, names: Iterable[str], splits: Iterable[str]) -> dict[str, str]:
    """Of the evaluation sets that a job reads, for its `inputs`."""
    if folder is None:
        return {}
    return {f"sets/{name}": digest for name, digest in hashes(set_files(folder, names, splits), folder).items()}


def write(folder: Path, job: str, settings: Mapping[str, Any], inputs: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """The last step of a job: record what made the folder, and the sha256 of every file of its result."""
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


def read(folder: Path, job: str) -> dict[str, Any]:
    """The manifest of a folder that `job` has finished. Raises `SourceError` where there is none, or where a file has changed."""
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


def is_complete(folder: Path, job: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the same job with the same settings on the same inputs has finished here before."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = read(folder, job)
    except SourceError:
        # Of another job, or changed since: it is made anew.
        return False
    as_json = json.loads(json.dumps(dict(settings), default=str))
    return bool(manifest["settings"] == as_json and manifest["inputs"] == dict(inputs))
