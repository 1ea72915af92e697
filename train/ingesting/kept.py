"""The caches of vectors and descriptions that lie on the driver's machine, for workers on any machine of the cluster.

An actor there owns the files. A worker gives it what it has made before it goes on, so the next run finds that, whatever was killed.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray

from matinee.disk_cache import DiskCache
from matinee.files import keep_private


class KeptFiles:
    """The actor. If it is started again, it does not know what was used before, and drops nothing."""

    def __init__(self) -> None:
        keep_private()
        self._open: dict[str, DiskCache] = {}
        self._whole = not ray.get_runtime_context().was_current_actor_reconstructed

    def get(self, path: str, keys: list[str]) -> dict[str, bytes]:
        return self._file(path).get(keys)

    def put(self, path: str, values: dict[str, bytes]) -> None:
        self._file(path).put(values)

    def use(self, path: str, keys: list[str]) -> None:
        self._file(path).use(keys)

    def drop_unused(self, path: str) -> None:
        if self._whole:
            self._file(path).drop_unused()

    def _file(self, path: str) -> DiskCache:
        if path not in self._open:
            self._open[path] = DiskCache(Path(path))
        return self._open[path]


class RemoteValues:
    """One file of the actor of that name (`matinee.disk_cache.KeptValues`).

    By its name: an actor whose arguments hold a handle can't be started again where the handle is gone.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._files: Any = ray.get_actor(name)
        self._path = str(path)

    @classmethod
    def opener(cls, name: str) -> Callable[[Path], "RemoteValues"]:
        return lambda path: cls(name, path)

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = ray.get(self._files.get.remote(self._path, list(keys)))
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        ray.get(self._files.put.remote(self._path, dict(values)))

    def use(self, keys: Iterable[str]) -> None:
        ray.get(self._files.use.remote(self._path, list(keys)))

    def drop_unused(self) -> None:
        ray.get(self._files.drop_unused.remote(self._path))

    def close(self) -> None:
        """Does nothing: the actor keeps the file open for others."""
