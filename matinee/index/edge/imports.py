"""The imports of a catalogue on the embedded engine: a folder a job beside the index versions, a file a chunk."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from matinee.errors import IndexUnavailableError
from matinee.index.edge import files
from matinee.index.imports import ImportJob

FOLDER = "_imports"
"""No name of an index version begins so: `prune` leaves it alone."""


class EdgeImports:
    """Jobs and chunks as files. Several processes may use one folder, as two Retrievers do while one takes over from the other."""

    def __init__(self, path: Path) -> None:
        self._path = path / FOLDER

    @files.in_thread
    def jobs(self) -> list[ImportJob]:
        jobs = [job for path in self._path.glob("*/job.json") if (job := self._read(path)) is not None]
        return sorted(jobs, key=lambda job: (job.asked, job.id))

    def _read(self, path: Path) -> ImportJob | None:
        text = files.read(path)
        if text is None:
            return None
        try:
            return ImportJob.model_validate_json(text)
        except ValidationError as error:
            raise IndexUnavailableError(f"{path} is not a readable import ({error.error_count()} faults): delete its folder") from error

    @files.in_thread
    def save(self, job: ImportJob) -> bool:
        folder = self._path / job.id
        with files.explain(folder):
            if job.version == 0:
                folder.mkdir(parents=True, exist_ok=True)
            elif not folder.is_dir():
                return False
            with files.hold_lock(folder, wait=True):
                stored = self._read(folder / "job.json")
                if (0 if stored is None else stored.version) != job.version:
                    return False
                files.write(folder / "job.json", job.model_copy(update={"version": job.version + 1}).model_dump_json())
        return True

    @files.in_thread
    def add(self, id: str, number: int, lines: bytes) -> None:
        with files.explain(self._path):
            files.require_space(self._path, len(lines))
            files.write(self._chunk(id, number), lines.decode())

    @files.in_thread
    def chunk(self, id: str, number: int) -> bytes | None:
        return files.read(self._chunk(id, number))

    @files.in_thread
    def drop(self, id: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._chunk(id, number).unlink(missing_ok=True)

    @files.in_thread
    def remove(self, id: str) -> None:
        shutil.rmtree(self._path / id, ignore_errors=True)

    def _chunk(self, id: str, number: int) -> Path:
        return self._path / id / f"{number:08}.ndjson"
