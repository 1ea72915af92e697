"""What an index of many items costs on one machine: build time by stage, memory and disk an item, what a graph loses, and latencies.

    python -m bench.scale --items 100000 --quantization scan none --home FOLDER
    python -m bench.scale --home FOLDER --quantization scan none --stage measure
    python -m bench.scale --quick --home FOLDER

The embedded engine and generated items (`bench.generated`): their vectors are clustered, so that recall means something, and no model is
loaded. "scan" has no graph; the others have one (HNSW), with small copies of the vectors or without. The items are written once, as
version "scan", and each graph is built on a copy of it, as the end of an ingest does.

Each stage's figures are kept in FOLDER/figures.json, and a run does only what is not there yet: after a kill, the same command goes on.
Writing goes on where it was; a graph begins again, because the engine builds it in one call. `--stage build` leaves out the latencies, and
`--stage measure` makes them anew: do it on a quiet machine.

Recall is the share of the ten best by brute force in NumPy that a dense search found. Latencies are those of the Retriever without HTTP
and without an encoder, which cost the same at any size: its replica and the client that its gateway uses, in this process, so that
searches which wait travel together as in a server. Memory is that of a process that does nothing but open the version and search.
"""

import argparse
import asyncio
import json
import resource
import shutil
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.generated import BLOCK
from bench.local_server import copy_sparsely
from bench.scale_home import (
    CATALOGUE,
    FILTERS,
    OVERSAMPLINGS,
    QUANTIZATIONS,
    QUICK,
    SCAN,
    SIMILAR,
    STAGES,
    K,
    ScaleHome,
    Size,
    Variant,
    item_vectors,
    say,
    timed,
)
from bench.scale_latency import measure_latencies
from bench.scale_tables import tables
from matinee.cli.errors import run_main
from matinee.index.edge import files
from matinee.index.points import BATCH, batch_points, described_batch, write_points
from matinee.index.protocols import Index
from matinee.index.types import ITEM, DenseQuery, Search, item_payload
from matinee.items import item_uid
from matinee.models.bm25 import Bm25Encoder
from matinee.vectors import Matrix


async def write(home: ScaleHome) -> None:
    """The version without a graph, from the block on that an earlier run did not finish."""
    done = home.figures.setdefault("write", {"blocks": 0})
    if done.get("finished"):
        return
    plain = Variant(SCAN, False)
    store, manifest, bm25 = home.store(plain), home.manifest, Bm25Encoder()
    index = await (store.resume if done["blocks"] else store.create)(manifest)
    try:
        for number in range(done["blocks"], home.catalogue.blocks):
            with timed(done, STAGES[0]):
                block = home.catalogue.block(number)
            with timed(done, STAGES[1]):
                batch = described_batch(block.items, [item.uid(CATALOGUE) for item in block.items], [None] * len(block.items), "raw")
                revisions = [0] * len(block.items)
                points = batch_points(batch, block.vectors, origin="file", revisions=revisions, recipe="raw", bm25=bm25)
            with timed(done, STAGES[2]):
                for at in range(0, len(points), BATCH):
                    await write_points(index, points[at : at + BATCH])
            done["blocks"] = number + 1
            home.save()
            if (number + 1) % 20 == 0:
                say(f"{(number + 1) * BLOCK:,} items written")
    finally:
        await index.close()
    await store.finish(manifest)
    done["finished"] = True
    home.save()


def find_exactly(home: ScaleHome) -> None:
    """The ten best of each query by brute force, and how many items pass each filter."""
    if home.figures.get("exact", {}).keys() >= {*FILTERS, SIMILAR}:
        return
    facts, starts = home.facts, home.starts
    best: dict[str, list[list[tuple[float, str]]]] = {name: [[] for _ in home.queries] for name in FILTERS}
    best[SIMILAR] = [[] for _ in starts]
    passing = dict.fromkeys(FILTERS, 0)
    for number in range(home.catalogue.blocks):
        block = home.catalogue.block(number)
        ids = [item.uid(CATALOGUE) for item in block.items]
        payloads = [item_payload(item, origin="file", revision=0) for item in block.items]
        scores = home.queries @ block.vectors.T
        for name, condition in FILTERS.items():
            passes = np.array([not condition.unmet(payload) for payload in payloads])
            passing[name] += int(passes.sum())
            _keep_best(best[name], np.where(passes, scores, -2), ids)
        vectors = item_vectors(block, range(len(block.items)), facts)
        similar = starts @ vectors.T
        for row, example in enumerate(home.examples):
            if number == example // BLOCK:
                similar[row, example % BLOCK] = -2
        _keep_best(best[SIMILAR], similar, ids)
    home.figures["exact"] = {name: [[id for _, id in row] for row in rows] for name, rows in best.items()}
    home.figures["passing"] = passing
    home.save()


def _keep_best(best: list[list[tuple[float, str]]], scores: Matrix, ids: list[str]) -> None:
    most = min(K, len(ids))
    for row, places in enumerate(np.argpartition(-scores, most - 1, axis=1)[:, :most]):
        found = [(float(scores[row, place]), ids[place]) for place in places if scores[row, place] > -2]
        best[row] = sorted([*best[row], *found], reverse=True)[:K]


async def build_graph(home: ScaleHome, variant: Variant) -> None:
    """The version of a variant: a copy of the one without graphs, finished with its settings."""
    figures = home.of(variant)
    if "disk" in figures:
        return
    folder = home.folder(variant)
    if variant.name != SCAN:
        if folder.exists():
            shutil.rmtree(folder)
        copy_sparsely(home.folder(Variant(SCAN, False)), folder)
        (folder / "manifest.json").unlink()
        took: dict[str, Any] = {}
        with timed(took, "graph"):
            await home.store(variant).finish(home.manifest.model_copy(update={"version": variant.name}))
        figures |= took | {"graph, peak MB": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)}
    figures["disk"] = _disk(folder)
    home.save()


def _disk(folder: Path) -> dict[str, int]:
    """Bytes on the disk by the part of the engine."""
    parts: dict[str, int] = defaultdict(int)
    for path in folder.glob("shard/segments/*/*"):
        parts[path.name.split(".")[0]] += files.size(path) if path.is_dir() else path.stat().st_blocks * 512
    parts["wal"] = files.size(folder / "shard" / "wal")
    parts["all"] = files.size(folder)
    return dict(parts)


def measure_memory(home: ScaleHome, variant: Variant) -> None:
    """In a process of its own, whose memory has nothing of a build."""
    if "memory" not in home.of(variant):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            home.of(variant)["memory"] = pool.submit(_run_memory, home.path, home.size, variant).result()
        home.save()


def _run_memory(path: Path, size: Size, variant: Variant) -> dict[str, dict[str, int]]:
    return asyncio.run(_memory(ScaleHome(path, size), variant))


async def _memory(home: ScaleHome, variant: Variant) -> dict[str, dict[str, int]]:
    # Made before the index is opened: they are none of its memory.
    queries = home.queries
    say(f"{variant.name}: memory, with {len(home.starts)} examples")
    before = _own_memory()
    index = await home.store(variant).open(variant.name)
    opened = _own_memory()
    for condition in FILTERS.values():
        for query in queries:
            await index.search([Search(DenseQuery(query), K, condition)])
        await index.facets("genres", filter=condition)
    await _similar(home, index)
    used = _own_memory()
    await index.close()
    return {"before": before, "opened": opened, "after searches": used}


def _own_memory() -> dict[str, int]:
    """Bytes of this process: its share of pages, those that no file backs, and those that a file backs, which the kernel may take back."""
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    names = {"PSS": "Pss", "RSS": "Rss", "anonymous": "Pss_Anon", "files": "Pss_File"}
    return {name: kilobytes[field] * 1024 for name, field in names.items()}


async def _similar(home: ScaleHome, index: Index) -> list[list[str]]:
    own = [item_uid(CATALOGUE, f"generated-{example}") for example in home.examples]
    searches = [Search(DenseQuery(start, ITEM), K, exclude=frozenset((id,))) for start, id in zip(home.starts, own, strict=True)]
    return [[hit.id for hit in (await index.search([search]))[0]] for search in searches]


async def measure_recall(home: ScaleHome, variant: Variant) -> None:
    """recall@10 by case, for each oversampling where there are copies to rank again."""
    figures = home.of(variant)
    if all(recall.keys() >= {*FILTERS, SIMILAR} for recall in figures.get("recall", {"": {}}).values()):
        return
    copies = variant.quantization not in (SCAN, "none")
    recalls: dict[str, dict[str, float]] = {}
    for oversampling in OVERSAMPLINGS if copies else OVERSAMPLINGS[:1]:
        index = await home.store(variant, oversampling if copies else None).open(variant.name)
        found = {SIMILAR: await _similar(home, index)}
        for name, condition in FILTERS.items():
            answers = await index.search([Search(DenseQuery(query), K, condition) for query in home.queries])
            found[name] = [[hit.id for hit in hits] for hits in answers]
        await index.close()
        recalls[str(oversampling)] = {name: _recall(rows, home.figures["exact"][name]) for name, rows in found.items()}
    figures["recall"] = recalls
    home.save()


def _recall(found: list[list[str]], exact: list[list[str]]) -> float:
    shares = [len({*one} & {*other}) / len(other) for one, other in zip(found, exact, strict=True) if other]
    return round(float(np.mean(shares)), 4) if shares else 1.0


async def build(home: ScaleHome, variant: Variant) -> None:
    """Everything but the latencies, which want a quiet machine."""
    await write(home)
    find_exactly(home)
    await build_graph(home, variant)
    say(f"{variant.name}: built")
    measure_memory(home, variant)
    await measure_recall(home, variant)
    say(f"{variant.name}: memory and recall measured")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, help="how many items; by default those that the folder has, or 100,000")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, nargs="+", default=[SCAN], help="what to build or to measure")
    parser.add_argument("--on-disk", action="store_true", help="keep vectors out of memory, as index.on_disk does")
    parser.add_argument("--home", type=Path, required=True, help="folder of the index and of the figures")
    parser.add_argument("--stage", choices=["all", "build", "measure"], default="all", help="build: all but latencies; measure: those anew")
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="seconds of each latency")
    parser.add_argument("--quick", action="store_true", help="1,100 items, few searches: whether it runs")
    args = parser.parse_args()
    size = QUICK if args.quick else Size(args.items or _items_of(args.home), seconds=args.seconds)
    home = ScaleHome(args.home, size)
    for quantization in args.quantization:
        variant = Variant(quantization, args.on_disk)
        if args.stage != "measure":
            asyncio.run(build(home, variant))
        if args.stage != "build":
            uvloop.run(measure_latencies(home, variant))
    print(tables(home.figures))


def _items_of(home: Path) -> int:
    file = home / "figures.json"
    return int(json.loads(file.read_text("utf-8"))["items"]) if file.exists() else 100_000


if __name__ == "__main__":
    run_main(main)
