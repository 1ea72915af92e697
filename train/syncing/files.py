"""Files as a source: one, a folder of them, a pattern or a bucket, through fsspec. Does not read what is in them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from matinee.errors import SourceError
from matinee.files import user_path

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""Files of a folder that are read, also with .gz behind."""
# What programs put beside their data: marks such as _SUCCESS, partial uploads, and the rejects of an ingest.
_BESIDE = (".*", "_*", "*.rejects.jsonl")


class Files:
    """The catalogue files behind a path, a pattern or a URL. Raises `SourceError` where it can't be read."""

    def __init__(self, source: str) -> None:
        self.name = source
        self._fs: Any = None
        self._path: str = source
        try:
            if not source.startswith("hub:"):
                self._fs, self._path = fsspec.core.url_to_fs(source if "://" in source else str(user_path(source)))
        except (ImportError, ValueError, OSError) as error:
            raise SourceError(f"{source}: {error}") from None

    def paths(self) -> list[str]:
        """The files there are now, in the order of their names."""
        if self._fs is None:
            return [self._path]
        with self._explain_errors():
            # What a listing said in an earlier round may have changed.
            self._fs.invalidate_cache()
            if fsspec.core.has_magic(self._path) and not self._fs.exists(self._path):
                paths = [path for path in self._fs.glob(self._path) if self._fs.isfile(path) and not _is_beside(PurePosixPath(path).name)]
            elif self._fs.isdir(self._path):
                paths = [path for path in self._fs.find(self._path) if _is_catalogue(path[len(self._path) :])]
            else:
                paths = [self._path] if self._fs.exists(self._path) else []
        if not paths:
            raise SourceError(f"{self.name}: there is no catalogue file ({', '.join(SUFFIXES)}; also .gz): check the path")
        return sorted(paths)

    @contextmanager
    def local(self, path: str) -> Iterator[str]:
        """The file as a path of this machine, until the end of the `with`."""
        if self._fs is None or isinstance(self._fs, LocalFileSystem):
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="matinee-sync-") as folder:
            copy = Path(folder) / PurePosixPath(path).name
            with self._explain_errors():
                self._fs.get_file(path, str(copy))
            yield str(copy)

    def location(self, path: str) -> str:
        """The file, as a message names it."""
        return path if self._fs is None else str(self._fs.unstrip_protocol(path)).removeprefix("file://")

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {self.name}: {_reason(error)}") from None


def _is_catalogue(path: str) -> bool:
    """Whether a file inside of a folder is one of the catalogue's. No part of its path is hidden."""
    parts = PurePosixPath(path.lstrip("/")).parts
    return not any(map(_is_beside, parts)) and PurePosixPath(parts[-1].lower().removesuffix(".gz")).suffix in SUFFIXES


def _is_beside(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _BESIDE)


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
