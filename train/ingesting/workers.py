"""The workers of an ingest on a cluster: each runs one stage of `matinee.index.points` over the batches that Ray Data gives it.

Settings come without secrets, since Ray keeps what starts an actor. A worker takes the key that it needs from its own environment.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from matinee.catalogue.rules import ColumnRules
from matinee.files import keep_private
from matinee.index.factory import open_store
from matinee.index.points import batch_points, chunks, describe_usable, write_points
from matinee.index.types import Manifest
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.models.descriptions import Descriptions
from matinee.settings.tree import Settings
from train.ingesting import columns
from train.ingesting.attempts import Attempts
from train.ingesting.kept import RemoteValues
from train.ingesting.worker_keys import with_own_key
from train.jobs.reader_options import ReaderOptions


@dataclass(frozen=True)
class ItemFile:
    """A catalogue file, as its first reading understood it."""

    source: str
    reading: ReaderOptions
    rules: ColumnRules

    def tables(self, catalogue: str, taken: frozenset[str]) -> Iterator[pa.Table]:
        """Its items in tables of a batch each, without those whose index ids are `taken`. Each reading gives the same."""
        return map(columns.item_table, chunks(self.reading.read(self.source, self.rules), catalogue, taken))


class DescriptionWorker:
    """Items -> descriptions: given (in the file `known`, by id), kept from an earlier run, or written now."""

    def __init__(self, settings: Settings, threads: int, kept: str, known: Path, attempts: Path) -> None:
        keep_private()
        alone = settings.enhancer.model_copy(update={"threads": threads})
        settings = with_own_key(settings.model_copy(update={"enhancer": alone}), "enhancer")
        self._given = RemoteValues(kept, known)
        self._attempts = Attempts(RemoteValues(kept, attempts), "describe")
        self._descriptions = Descriptions(settings, open_cache=RemoteValues.opener(kept))

    def __call__(self, table: pa.Table) -> pa.Table:
        items = columns.items_of(table)
        texts, reasons = describe_usable(table[columns.ID].to_pylist(), items, self._describe, self._attempts.isolate)
        table = columns.with_reasons(table, reasons)
        return columns.with_descriptions(table, [texts.get(row) for row in range(len(items))])

    def write(self, items: Sequence[str]) -> list[str | None]:
        """The descriptions of items that are written as JSON."""
        return self._describe([Item.model_validate_json(item) for item in items])

    def _describe(self, items: Sequence[Item]) -> list[str | None]:
        given = self._given.get([item.id for item in items if item.id])
        written = iter(self._descriptions.write([item for item in items if item.id not in given]))
        return [given[item.id].decode() if item.id in given else next(written) for item in items]


class PointWriter:
    """Batches with vectors -> points in the new version. A batch that comes again is the same points.

    It opens the version at its first batch, and holds it until its process ends: the embedded engine lets one process in. Each write is
    on disk when it returns. It does not close anything when Python deletes it: that may be while the interpreter ends, where the
    event loop's last thread would never start, and the process, with the version, would stay for good.
    """

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        keep_private()
        with ExitStack() as opened:
            self._loop = opened.enter_context(asyncio.Runner())
            store = open_store(with_own_key(settings, "index"))
            opened.callback(lambda: self._loop.run(store.close()))
            self._index = self._loop.run(store.resume(manifest))
            opened.callback(lambda: self._loop.run(self._index.close()))
            self._opened = opened.pop_all()
        self._recipe = manifest.recipe
        self._bm25 = Bm25Encoder(settings.embedder.language)

    def __call__(self, table: pa.Table) -> pa.Table:
        batch = columns.batch_of(table, self._recipe)
        vectors = columns.vectors_of(table)[columns.usable(table)]
        points = batch_points(batch, vectors, origin="file", revisions=[0] * len(batch.ids), recipe=self._recipe, bm25=self._bm25)
        if points:
            self._loop.run(write_points(self._index, points))
        return columns.counts_table(table)

    def close(self) -> None:
        """Give the version back before the process ends."""
        self._opened.close()
