"""`train.describe` on a cluster: the stage of `train.generation.describing` in processes of their own, as a stream of Ray Data.

Imports Ray: only after `matinee.settings.local_ray.secure`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from matinee.evaluation.splits import Entry
from matinee.files import keep_private
from matinee.settings.load import without_secrets
from train.generation.describing import BATCHES, Describing
from train.ingesting import columns, streams
from train.ingesting.plan import Pool
from train.ingesting.worker_keys import with_own_key

_LINE = "line"
_PARTS = 4
"""At least so many parts a worker, so that none waits long for the last."""


class DescribeWorker:
    """Items -> lines."""

    def __init__(self, describing: Describing, threads: int) -> None:
        keep_private()
        settings = describing.settings
        alone = settings.enhancer.model_copy(update={"threads": threads})
        settings = with_own_key(settings.model_copy(update={"enhancer": alone}), "enhancer")
        self._describing = replace(describing, settings=settings)
        self._enhancer = self._describing.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        lines = self._describing.lines(self._enhancer, table[columns.ID].to_pylist(), columns.items_of(table))
        return pa.table({_LINE: pa.array(lines, pa.binary())})

    def info(self) -> dict[str, Any]:
        return self._enhancer.info()


class ClusterDescriber:
    """Describes on the cluster that this process has joined. A part whose worker is killed is described again."""

    def __init__(self, describing: Describing, pool: Pool) -> None:
        settings = describing.settings
        enhancer = settings.enhancer
        if enhancer.adapter and Path(enhancer.adapter).is_dir():
            # As processes find it that were started in another folder.
            enhancer = enhancer.model_copy(update={"adapter": str(Path(enhancer.adapter).absolute())})
        shared = settings.model_copy(update={"home": settings.home_dir, "enhancer": enhancer})
        self._pool = pool
        self._batch = enhancer.batch_size
        self._arguments = {"describing": replace(describing, settings=without_secrets(shared)), "threads": pool.threads}

    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = streams.ask_once(DescribeWorker, self._pool, self._arguments, lambda worker: worker.info.remote())
        return info

    def lines(self, entries: Sequence[Entry]) -> Iterator[list[bytes]]:
        """The lines of the items, in the order in which the workers end."""
        if not entries:
            return
        size = min(BATCHES * self._batch, -(-len(entries) // (_PARTS * self._pool.size)))
        with streams.context(), streams.explain_errors():
            # A block each: a killed worker's is described again, and none waits for another's.
            stream = streams.source("Prepared items", *(partial(_read, entries[at : at + size]) for at in range(0, len(entries), size)))
            stream = streams.stage(stream, DescribeWorker, self._pool.size, size, self._arguments, **streams.resources(self._pool))
            for table in streams.tables(stream):
                yield table[_LINE].to_pylist()


def _read(entries: Sequence[Entry]) -> Iterator[pa.Table]:
    ids, items = [entry.id for entry in entries], [entry.item.model_dump_json() for entry in entries]
    yield pa.table({columns.ID: pa.array(ids, pa.string()), columns.ITEM: pa.array(items, pa.string())})
