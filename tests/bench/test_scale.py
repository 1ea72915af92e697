"""`bench.scale`: a small catalogue through all of its stages, an interrupted one too; the exact answers are the engine's own scan's."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.generated import BLOCK, GeneratedCatalogue
from bench.local_server import BenchError
from bench.scale import build, measure_recall, write
from bench.scale_home import QUICK, SCAN, SIMILAR, ScaleHome, Size, Variant
from bench.scale_latency import measure_latencies
from bench.scale_tables import tables
from tests.waiting import until_async

PLAIN, BINARY = Variant(SCAN, on_disk=False), Variant("binary", on_disk=True)


async def test_an_interrupted_run_goes_on_and_measures_every_stage(tmp_path: Path) -> None:
    home = ScaleHome(tmp_path, QUICK)
    writing = asyncio.create_task(write(home))
    await until_async(lambda: home.figures.get("write", {}).get("blocks") == 1)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    home = ScaleHome(tmp_path, QUICK)
    assert home.figures["write"]["blocks"] == 1
    await build(home, BINARY)
    await measure_recall(home, PLAIN)
    await measure_latencies(home, BINARY)
    kept = ScaleHome(tmp_path, QUICK).figures
    assert kept["passing"]["all items"] == QUICK.items
    assert 0 < kept["passing"]["a rare genre in two languages"] < kept["passing"]["a rare genre"] < QUICK.items
    # The engine scans: it agrees with NumPy on vectors, facts and filters.
    assert set(kept["variants"][SCAN]["recall"]["2"].values()) == {1.0}
    copies = kept["variants"][BINARY.name]
    assert 0.3 < copies["recall"]["2"]["all items"] <= copies["recall"]["8"]["all items"] <= 1
    assert copies["memory"]["opened"]["PSS"] > copies["memory"]["before"]["PSS"]
    assert copies["disk"]["vector_storage-item"] > copies["disk"]["vector_storage-text"] > QUICK.items * QUICK.dimension * 4
    assert copies["latency"]["cases"][SIMILAR]["32"]["statuses"].keys() == {"200"}
    assert BINARY.name in tables(kept)


def test_a_home_keeps_its_number_of_items(tmp_path: Path) -> None:
    ScaleHome(tmp_path, QUICK).save()
    with pytest.raises(BenchError, match="use another folder"):
        ScaleHome(tmp_path, Size(items=9, dimension=QUICK.dimension))


def test_generated_items_are_the_same_each_time_and_their_neighbours_are_of_their_topic() -> None:
    first, again = (GeneratedCatalogue(BLOCK + 5, 48).block(1) for _ in range(2))
    assert (len(first.items), first.items) == (5, again.items)
    assert np.array_equal(first.vectors, again.vectors)
    vectors = GeneratedCatalogue(BLOCK, 384).block(0).vectors
    cosines = vectors @ vectors.T - 2 * np.eye(BLOCK, dtype=np.float32)
    assert np.median(cosines.max(1)) > 2 * (cosines.sum() + BLOCK) / (BLOCK * BLOCK - BLOCK)
