"""Items a second of an ingest without descriptions, and what part of it is the encoder alone.

    python -m bench.ingest mymoviedb.csv --out ingest.json

Runs the same stages as `python -m train.ingest` in one process, each timed; then the encoder alone over the same texts in the same
batches. The encoder's precision is measured and chosen as in a real ingest. CPU seconds are those of all threads: other programs on the
machine change them less than seconds.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from matinee.catalogue.reader import read_items
from matinee.cli.errors import run_main
from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.points import BATCH, PointMaker
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from matinee.text import templates


def batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    stream = iter(items)
    while chunk := list(islice(stream, BATCH)):
        yield chunk


async def run(catalogue: Path, home: Path) -> dict[str, Any]:
    settings = load_settings({"catalogue": "bench"})
    embedder = Embedder.load(settings.embedder, settings.models_dir, workload="corpus")
    start = _now()
    items = list(read_items(catalogue, kind="film"))
    reading, reading_cpu = _since(start)
    start = _now()
    store = open_store(load_settings({"catalogue": "bench", "home": home}))
    outcome = await Build(store, PointMaker(embedder, "raw"), "bench", str(catalogue)).run(items)
    building, building_cpu = _since(start)
    start = _now()
    for chunk in batches(items):
        embedder.encode([templates.embedded_text(item, None, "raw") for item in chunk])
    encoding, encoding_cpu = _since(start)
    total, total_cpu = reading + building, reading_cpu + building_cpu
    return {
        "items": outcome.manifest.count,
        "precision": embedder.precision,
        "read_s": round(reading, 2),
        "build_s": round(building, 2),
        "items_per_s": round(len(items) / total, 1),
        "encoder_alone_s": round(encoding, 2),
        "encoder_alone_items_per_s": round(len(items) / encoding, 1),
        "encoder_share": round(encoding / total, 3),
        "cpu_s": round(total_cpu, 1),
        "encoder_alone_cpu_s": round(encoding_cpu, 1),
        "encoder_share_of_cpu": round(encoding_cpu / total_cpu, 3),
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    seconds, cpu_s = _now()
    return seconds - start[0], cpu_s - start[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path, help="the catalogue file to ingest")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="matinee-bench-") as home:
        result = asyncio.run(run(args.catalogue, Path(home)))
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    run_main(main)
