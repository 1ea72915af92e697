"""Files as a source: one, a folder of them, a pattern or a bucket, through fsspec. Does not read what is in them."""

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from matinee.catalogue.folder import SUFFIXES, is_beside, is_catalogue
from matinee.errors import SourceError
from matinee.files import user_path

_WEB = ("http://", "https://")


class Files:
    """The catalogue files behind a path, a pattern or a URL. Raises `SourceError` where it can't be read."""

    def __init__(self, source: str) -> None:
        self.name = public_name(source)
        self._source = source
        self._fs: Any = None
        self._path: str = source
        try:
            if not source.startswith("hub:"):
                self._fs, self._path = fsspec.core.url_to_fs(source if "://" in source else str(user_path(source)))
        except (ImportError, ValueError, OSError) as error:
            raise SourceError(f"{self._reason(error)}") from None

    def paths(self) -> list[str]:
        """The files there are now, in the order of their names."""
        if self._fs is None or self._path.startswith(_WEB):
            # A web server lists no folder, and a `?` is part of a URL.
            return [self._path]
        with self._explain_errors():
            # What a listing said in an earlier round may have changed.
            self._fs.invalidate_cache()
            if fsspec.core.has_magic(self._path) and not self._fs.exists(self._path):
                paths = [path for path in self._fs.glob(self._path) if self._fs.isfile(path) and not is_beside(PurePosixPath(path).name)]
            elif self._fs.isdir(self._path):
                paths = [path for path in self._fs.find(self._path) if is_catalogue(path[len(self._path) :])]
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
        with tempfile.TemporaryDirectory(prefix="matinee-files-") as folder:
            copy = Path(folder) / _file_name(path)
            self._fetch(path, copy)
            yield str(copy)

    @contextmanager
    def as_one(self) -> Iterator[tuple[str, str]]:
        """All files as a file or a folder of this machine, until the end of the `with`, and what messages call it.

        Files of a store are copied into the temporary folder: a catalogue is read several times, and must be the same each time.
        """
        paths = self.paths()
        if len(paths) == 1:
            with self.local(paths[0]) as path:
                yield path, self.location(paths[0])
            return
        root = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        with tempfile.TemporaryDirectory(prefix="matinee-files-") as temporary:
            # Reports, and the file of rejected rows, are named after it.
            folder = Path(temporary) / (PurePosixPath(root).name or "files")
            for path in paths:
                copy = folder / PurePosixPath(path).relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(self._fs, LocalFileSystem):
                    copy.symlink_to(path)
                else:
                    self._fetch(path, copy)
            yield str(folder), self.location(root)

    def _fetch(self, path: str, copy: Path) -> None:
        with self._explain_errors():
            self._fs.get_file(path, str(copy))

    def location(self, path: str) -> str:
        """The file, as a message names it."""
        return path if self._fs is None else public_name(str(self._fs.unstrip_protocol(path)).removeprefix("file://"))

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  each store raises errors of its own library
            raise SourceError(f"cannot read {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        text = str(getattr(error, "strerror", None) or error) or type(error).__name__
        return f"{self.name}: {text.replace(self._source, self.name)}"


def public_name(source: str) -> str:
    """A source as messages and manifests name it: without the user, the password and the signature that a URL may carry."""
    if not source.startswith(_WEB):
        return source
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _file_name(path: str) -> str:
    return PurePosixPath(urlsplit(path).path if path.startswith(_WEB) else path).name or "catalogue"
