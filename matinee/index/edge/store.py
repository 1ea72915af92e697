"""The versions of a catalogue on the embedded engine: folders with a manifest, and `CURRENT`, replaced by an atomic rename.

A version without a manifest is an unfinished build. Does not watch `CURRENT`: the Retriever does.
"""

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from pydantic import ValidationError

from matinee.errors import IndexAbsentError, IndexLockedError, IndexUnavailableError
from matinee.index.absence import no_build, no_previous, no_version
from matinee.index.edge import files, hnsw
from matinee.index.edge.imports import EdgeImports
from matinee.index.edge.index import EdgeIndex
from matinee.index.lease import Held, leased_error
from matinee.index.progress import BuildProgress, read_progress
from matinee.index.types import Manifest
from matinee.settings.index import IndexSettings

_LOOK_S = 0.05
_PROGRESS = "BUILD.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class EdgeStore:
    """The folder of one catalogue's versions. A version without a manifest is an unfinished build."""

    def __init__(self, path: Path, catalogue: str, settings: IndexSettings = IndexSettings()) -> None:  # noqa: B008  it is frozen
        self._path = path
        self._catalogue = catalogue
        self._settings = settings

    async def versions(self) -> list[Manifest]:
        return await asyncio.to_thread(self._versions)

    def _versions(self) -> list[Manifest]:
        folders = sorted((path.parent for path in self._path.glob("*/manifest.json")), reverse=True)
        return [self._manifest(folder.name) for folder in folders]

    @files.in_thread
    def current(self) -> Manifest | None:
        return self._read_marked("current")

    @files.in_thread
    def previous(self) -> Manifest | None:
        return self._read_marked("previous")

    async def create(self, manifest: Manifest) -> EdgeIndex:
        path = self._folder(manifest.version)
        if (path / "manifest.json").exists():
            raise IndexUnavailableError(f"the index version {manifest.version} exists already: build under a new name")
        return await EdgeIndex.start(path, manifest, self._settings, create=True)

    async def resume(self, manifest: Manifest) -> EdgeIndex:
        path = self._folder(manifest.version)
        if not await asyncio.to_thread((path / "shard").is_dir):
            raise no_build(manifest, f"under {self._path}")
        return await EdgeIndex.start(path, manifest, self._settings)

    @files.in_thread
    def finish(self, manifest: Manifest) -> None:
        path = self._folder(manifest.version)
        if not (path / "shard").is_dir():
            raise no_build(manifest, f"under {self._path}")
        with files.explain(path), files.hold_lock(path):
            if self._settings.graph_from and manifest.count >= self._settings.graph_from:
                hnsw.build(path, manifest, self._settings)
            files.write(path / "manifest.json", manifest.model_dump_json(indent=2))

    async def open(self, version: str) -> EdgeIndex:
        manifest = await asyncio.to_thread(self._manifest, version)
        return await EdgeIndex.start(self._folder(version), manifest, self._settings)

    def imports(self) -> EdgeImports:
        return EdgeImports(self._path)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Held]:
        await asyncio.to_thread(self._path.mkdir, parents=True, exist_ok=True)
        with files.explain(self._path):
            try:
                lock = files.take_lock(self._path, "BUILD.lock")
            except IndexLockedError:
                # It may have been a look (`lease_mark`).
                await asyncio.sleep(_LOOK_S)
                try:
                    lock = files.take_lock(self._path, "BUILD.lock")
                except IndexLockedError:
                    raise leased_error(self._catalogue, "another process on this machine") from None
        note = self._path / _PROGRESS
        try:
            # Of one that was killed.
            note.unlink(missing_ok=True)
            yield _held
        finally:
            note.unlink(missing_ok=True)
            os.close(lock)

    async def lease_mark(self) -> str | None:
        # The kernel knows who lives.
        return str(time.monotonic()) if await asyncio.to_thread(files.is_locked, self._path / "BUILD.lock") else None

    @files.in_thread
    def note_build(self, progress: BuildProgress) -> None:
        with files.explain(self._path):
            files.write(self._path / _PROGRESS, progress.model_dump_json())

    @files.in_thread
    def build_progress(self) -> BuildProgress | None:
        if not files.is_locked(self._path / "BUILD.lock"):
            return None
        text = files.read(self._path / _PROGRESS)
        return None if text is None else read_progress(text)

    @files.in_thread
    def switch(self, version: str) -> None:
        self._manifest(version)
        with self._marking():
            marks = self._marks()
            if marks.get("current") != version:
                self._mark(current=version, previous=marks.get("current"))

    @files.in_thread
    def rollback(self) -> Manifest:
        with self._marking():
            marks = self._marks()
            previous = marks.get("previous")
            if previous is None:
                raise no_previous(self._catalogue)
            manifest = self._manifest(previous)
            self._mark(current=previous, previous=marks.get("current"))
            return manifest

    @files.in_thread
    def prune(self, keep: int) -> list[str]:
        kept = {*[manifest.version for manifest in self._versions()[:keep]], *self._marks().values()}
        doomed = [path for path in self._path.glob("*/") if path.name not in kept and _NAME.fullmatch(path.name)]
        return [path.name for path in sorted(doomed) if self._remove(path)]

    def _remove(self, path: Path) -> bool:
        """Delete a version unless it is open. The next call deletes a version that is still built or drained now."""
        try:
            with files.explain(path), files.hold_lock(path):
                # First of all: a kill from here on leaves an unfinished build, never half of a finished version.
                (path / "manifest.json").unlink(missing_ok=True)
                shutil.rmtree(path)
        except IndexLockedError:
            return False
        return True

    async def destroy(self) -> None:
        if await asyncio.to_thread(self._path.is_dir):
            async with self.lease():
                await self._destroy()

    @files.in_thread
    def _destroy(self) -> None:
        with files.explain(self._path), ExitStack() as held:
            for path in self._path.glob("*/LOCK"):
                held.enter_context(files.hold_lock(path.parent))
            # First of all: no version is current without its files.
            (self._path / "CURRENT").unlink(missing_ok=True)
            shutil.rmtree(self._path)

    async def close(self) -> None:
        """Does nothing: each caller closes the versions that it opened."""

    def _folder(self, version: str) -> Path:
        if not _NAME.fullmatch(version):
            raise IndexAbsentError(f"{version!r} can't be the name of an index version")
        return self._path / version

    def _manifest(self, version: str) -> Manifest:
        path = self._folder(version) / "manifest.json"
        text = files.read(path)
        if text is None:
            raise no_version(version, self._catalogue, f"under {self._path}")
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise IndexUnavailableError(
                f"{path} is not a readable manifest ({error.error_count()} faults): delete its folder and build the version again"
            ) from error

    def _read_marked(self, mark: str) -> Manifest | None:
        version = self._marks().get(mark)
        return None if version is None else self._manifest(version)

    def _marks(self) -> dict[str, str]:
        path = self._path / "CURRENT"
        text = files.read(path)
        if text is None:
            return {}
        try:
            return {mark: version for mark, version in json.loads(text).items() if isinstance(version, str)}
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise IndexUnavailableError(
                f'{path} is damaged: replace its content by {{"current": "<version>"}}, with the name of a folder beside it'
            ) from error

    @contextmanager
    def _marking(self) -> Iterator[None]:
        """Marks are read, changed and written by one process at a time."""
        if not self._path.is_dir():
            yield
            return
        with files.explain(self._path), files.hold_lock(self._path, "CURRENT.lock", wait=True):
            yield

    def _mark(self, *, current: str, previous: str | None) -> None:
        with files.explain(self._path):
            files.write(self._path / "CURRENT", json.dumps({"current": current, "previous": previous}))


async def _held() -> None:
    """The kernel holds a lock as long as its process lives."""
