"""Graphs (HNSW) over the dense vectors of a version of the embedded engine, built once, when the version is complete.

In a process of its own: the engine keeps Python's lock for as long as it builds, minutes from some 100,000 items on, in which neither a
progress bar nor Ctrl-C would work. Does not lock the version: its caller does.
"""

import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import qdrant_edge as edge

from matinee.errors import IndexUnavailableError
from matinee.index.edge import files
from matinee.index.edge.query import shard_config
from matinee.index.types import Manifest
from matinee.settings.index import IndexSettings

_MARK = "graph"


def build(path: Path, manifest: Manifest, settings: IndexSettings) -> None:
    """Graphs for the searches of the closed version at `path` that have more than `settings.graph_from` items to choose from.

    Needs the version's size on the disk once more. Whatever it raises, or a kill, leaves an unfinished build. Raises
    `IndexUnavailableError` where there is no such space, and where the building process is killed.
    """
    files.require_space(path, files.size(path))
    # Ctrl-C goes to both processes: it ends this one at once, and the other goes on to tell.
    ends_at_once = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ends_at_once) as pool:
        try:
            pool.submit(_optimize, str(path / "shard"), manifest, settings).result()
        except BrokenProcessPool as error:
            raise IndexUnavailableError(
                f"the process that built the graph of {path} was killed, as for want of memory or of disk space: "
                "free some, or unset index.graph_from, and build the version again"
            ) from error
    (path / _MARK).touch()


def built(path: Path) -> bool:
    """Whether the version at `path` has graphs. The engine's own count of indexed vectors doesn't tell: it counts sparse ones too."""
    return (path / _MARK).exists()


def _optimize(shard: str, manifest: Manifest, settings: IndexSettings) -> None:
    opened = edge.EdgeShard.load(shard, shard_config(manifest, settings, graphs=True))
    try:
        opened.optimize()
        opened.flush()
    finally:
        opened.close()
