"""The stages of `train.ingesting.workers`, one after the other in this process: the same index as a build that is not spread."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from matinee.catalogue.reader import read_items
from matinee.errors import IndexAbsentError, SourceError
from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.isolation import FailedItem
from matinee.index.points import PointMaker
from matinee.index.types import Manifest
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from tests.train.ingesting.catalogue import points_of, write_catalogue
from train.ingesting import columns
from train.ingesting.embedding import Embedding
from train.ingesting.workers import ItemFile, PointWriter
from train.jobs.reader_options import ReaderOptions

READING = ReaderOptions(kind="film")


@pytest.fixture(scope="module")
def settings(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    model = tiny_encoder.save(home / "model")
    return load_settings({"home": home, "embedder": {"model": str(model), "precision": "fp32", "threads": 1}}, environ={})


def test_items_and_vectors_travel_as_plain_columns() -> None:
    items = [Item(id="1", title="Été", people={"cast": ["A"]}, numbers={"votes": 3}), Item(title="Ran", year=1985, identity=("RAN", None))]
    chunk = {item.uid("demo"): item for item in items}
    table = columns.item_table(chunk)
    assert {field.type for field in table.schema} == {pa.string()}
    assert columns.items_of(table) == items
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    made = columns.with_vectors(columns.with_descriptions(table, ["Of a summer.", None]), vectors, encoded=3, known=1)
    for part, rows in ((made, slice(0, 2)), (made.slice(1), slice(1, 2)), (pa.concat_tables([made.slice(1), made]).slice(1), slice(0, 2))):
        assert columns.vectors_of(part).tolist() == vectors[rows].tolist()
        assert columns.batch_of(part, "both").descriptions == ["Of a summer.", None][rows]
    assert columns.sums(columns.counts_table(made)) == {"written": 2, "encoded": 3, "known": 1}


def test_the_workers_stages_make_the_index_of_one_process(settings: Settings, tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "films.csv", 300)
    embedder = Embedder.load(settings.embedder, settings.models_dir)

    async def alone() -> Any:
        store = open_store(settings)
        outcome = await Build(store, PointMaker(embedder, "raw"), "demo", "test").run(read_items(path, kind="film"))
        return await points_of(store, outcome.manifest.version)

    expected = asyncio.run(alone())
    reader = READING.read(str(path))
    taken = frozenset([next(iter(reader)).uid("demo")])

    async def spread(manifest: Manifest, skipped: frozenset[str], progress: Any) -> tuple[int, int, list[FailedItem]]:
        return await asyncio.to_thread(run_stages, manifest, skipped)

    def run_stages(manifest: Manifest, skipped: frozenset[str]) -> tuple[int, int, list[FailedItem]]:
        embedding, writer = Embedding(settings, 1, None), PointWriter(settings, manifest)
        tables = list(ItemFile(str(path), READING, reader.rules).tables("demo", skipped | taken))
        # A batch that comes again, as after a kill, is the same points.
        done = [columns.sums(writer(embedding(table))) for table in [*tables, tables[0]]][:-1]
        assert [count["known"] for count in done] == [0, 0]
        writer.close()
        return sum(count["written"] for count in done), len(taken), []

    async def build() -> Any:
        store = open_store(settings)
        outcome = await Build(store, PointMaker(embedder, "raw"), "demo", "test", write_file=spread).run(())
        assert outcome.counts == {"file": 299, "api": 0, "tombstones": 0, "shadowed": 1, "discarded": 0}
        return await points_of(store, outcome.manifest.version)

    made = asyncio.run(build())
    assert made.keys() == expected.keys() - taken
    for id, (payload, dense, sparse) in made.items():
        assert (payload, sparse) == (expected[id][0], expected[id][2])
        assert dense.keys() == expected[id][1].keys()
        for name, vector in dense.items():
            assert vector == pytest.approx(expected[id][1][name], abs=1e-5)


def test_items_that_a_model_fails_at_travel_to_the_end_with_their_reasons(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalogue(tmp_path / "films.csv", 20)
    [table] = ItemFile(str(path), READING, READING.read(str(path)).rules).tables("demo", frozenset())
    table = columns.with_reasons(table, {3: "the enhancer failed: no words"})
    embedding = Embedding(settings, 1, None)
    encode = Embedding.encode

    def failing(self: Embedding, texts: Sequence[str]) -> Any:
        if any(text.startswith("Film 7.") for text in texts):
            raise RuntimeError("out of memory")
        return encode(self, texts)

    monkeypatch.setattr(Embedding, "encode", failing)
    made = embedding(table)
    assert columns.usable(made) == [row for row in range(20) if row not in (3, 7)]
    assert columns.batch_of(made, "raw").ids == [id for row, id in enumerate(table["id"].to_pylist()) if row not in (3, 7)]
    counts = columns.counts_table(made)
    assert columns.sums(counts) == {"written": 18, "encoded": 18, "known": 0}
    reasons = {failed.item.title: failed.reason for failed in columns.failed_items(pa.concat_tables([counts, counts.slice(1)]))}
    assert reasons == {"Film 3": "the enhancer failed: no words", "Film 7": "the encoder failed: RuntimeError: out of memory"}
    norms = np.linalg.norm(columns.vectors_of(made), axis=1)
    assert [bool(norm) for norm in norms] == [row not in (3, 7) for row in range(20)]


def test_a_file_that_went_away_since_it_was_understood_is_named(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "films.csv", 3)
    file = ItemFile(str(path), READING, READING.read(str(path)).rules)
    assert sum(len(table) for table in file.tables("demo", frozenset())) == 3
    path.unlink()
    with pytest.raises(SourceError, match=r"films\.csv"):
        list(file.tables("demo", frozenset()))


def test_a_version_that_nobody_began_is_not_resumed(settings: Settings) -> None:
    absent = Manifest(version="v-absent", catalogue="demo", fingerprint="f", recipe="raw", dimensions={"text": 4})
    with pytest.raises(IndexAbsentError, match="no build of version v-absent"):
        PointWriter(settings, absent)
