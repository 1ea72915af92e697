"""What an index of many items costs on one machine: build time by stage, memory and disk an item, what a graph loses, and latencies.

    python -m bench.scale --items 100000 --quantization scan none --home FOLDER
    python -m bench.scale --home FOLDER --quantization scan none --stage measure
    python -m bench.scale --quick --home FOLDER

The embedded engine and generated items (`bench.generated`): their vectors are clustered, so that recall means something, and no model is
loaded. `scan` has no graph; the others have one (HNSW), with small copies of the vectors or without. The items are written once, as
version `scan`, and each graph is built on a copy of it, as the end of an ingest does.

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
import os
import resource
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.generated import BLOCK, Block, GeneratedCatalogue
from bench.load import Result
from bench.local_server import BenchError, copy_sparsely
from bench.tables import markdown
from matinee.cli.errors import run_main
from matinee.errors import OverloadedError
from matinee.files import write_atomically
from matinee.filters import ItemFilter
from matinee.index.build import new_manifest
from matinee.index.edge import files
from matinee.index.edge.store import EdgeStore
from matinee.index.item_vector import item_vector
from matinee.index.points import BATCH, batch_points, described_batch, write_points
from matinee.index.protocols import Index
from matinee.index.types import ITEM, DenseQuery, Manifest, Search, item_payload
from matinee.items import item_uid
from matinee.models.bm25 import Bm25Encoder
from matinee.recommend.queries import Example, ExampleQuery, TextQuery
from matinee.settings.index import FactWeights
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from serve.graph.clients import RetrieverClient, send_to
from serve.graph.messages import Facets, Rank, RetrieverMessage
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink

CATALOGUE, FINGERPRINT, SCAN = "generated", "f" * 64, "scan"
QUANTIZATIONS = (SCAN, "none", "scalar", "product", "binary")
K = 10
CLIENTS = (1, 32)
FILTERS = {
    "all items": ItemFilter(),
    "a frequent genre": ItemFilter(genres=["Comedy"]),
    "a rare genre": ItemFilter(genres=["Animation"]),
    "a rare genre in two languages": ItemFilter(genres=["Animation"], language=["de", "ja"]),
}
SIMILAR = "similar items"
OVERSAMPLINGS = (2, 4, 8)
_SEARCHES = 2000
_DEADLINE_S = 600.0
_STAGES = ("making items", "BM25 and points", "writing")


@dataclass(frozen=True)
class Size:
    """How much is built and measured. `queries` are those of recall and memory."""

    items: int
    dimension: int = 384
    graph_from: int = 10_000
    queries: int = 200
    seconds: float = 8


QUICK = Size(items=1100, dimension=48, graph_from=300, queries=20, seconds=0.03)


@dataclass(frozen=True)
class Variant:
    """One way to search the same items. `name` is that of its index version."""

    quantization: str
    on_disk: bool

    @property
    def name(self) -> str:
        return self.quantization + ("-on-disk" if self.on_disk else "")

    def settings(self, home: Path, size: Size, oversampling: int | None = None) -> Settings:
        chosen: dict[str, object] = {"ON_DISK": self.on_disk}
        if self.quantization != SCAN:
            chosen |= {"GRAPH_FROM": size.graph_from, "QUANTIZATION": self.quantization}
        if oversampling is not None:
            chosen["OVERSAMPLING"] = oversampling
        environment = {f"MATINEE_INDEX__{name}": str(value) for name, value in chosen.items()}
        return load_settings(environ={"MATINEE_HOME": str(home), "MATINEE_CATALOGUE": CATALOGUE} | environment)


class ScaleHome:
    """A folder with the index and the figures of its stages."""

    def __init__(self, path: Path, size: Size) -> None:
        self.path, self.size = path, size
        self.catalogue = GeneratedCatalogue(size.items, size.dimension)
        self._file = path / "figures.json"
        path.mkdir(parents=True, exist_ok=True)
        self.figures: dict[str, Any] = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {"items": size.items}
        self.figures.setdefault("dimension", size.dimension)
        if (self.figures["items"], self.figures["dimension"]) != (size.items, size.dimension):
            raise BenchError(f"{path} has {self.figures['items']:,} items of {self.figures['dimension']} numbers: use another folder")

    def save(self) -> None:
        write_atomically(self._file, json.dumps(self.figures, indent=2), fsync=True)

    def of(self, variant: Variant) -> dict[str, Any]:
        figures: dict[str, Any] = self.figures.setdefault("variants", {}).setdefault(variant.name, {})
        return figures

    @property
    def manifest(self) -> Manifest:
        made = new_manifest(CATALOGUE, FINGERPRINT, self.size.dimension, "raw", self.facts, "", None)
        return made.model_copy(update={"version": SCAN, "count": self.size.items})

    def store(self, variant: Variant, oversampling: int | None = None) -> EdgeStore:
        settings = variant.settings(self.path, self.size, oversampling)
        return EdgeStore(settings.index_dir, CATALOGUE, settings.index)

    def folder(self, variant: Variant) -> Path:
        return variant.settings(self.path, self.size).index_dir / variant.name

    @cached_property
    def queries(self) -> Matrix:
        return np.stack([query.vector for query in self.catalogue.queries(self.size.queries)])

    @cached_property
    def facts(self) -> FactWeights:
        return Variant(SCAN, on_disk=False).settings(self.path, self.size).index.facts

    @cached_property
    def starts(self) -> Matrix:
        """The item vectors of `examples`."""
        places: dict[int, list[int]] = {}
        for example in self.examples:
            places.setdefault(example // BLOCK, []).append(example % BLOCK)
        return np.concatenate([_item_vectors(self.catalogue.block(number), chosen, self.facts) for number, chosen in places.items()])

    @property
    def examples(self) -> range:
        """Numbers of the items whose neighbours recall looks for."""
        step = max(1, self.size.items // self.size.queries)
        return range(0, step * min(self.size.queries, self.size.items), step)


@contextmanager
def timed(figures: dict[str, Any], stage: str) -> Iterator[None]:
    """Adds the seconds of the block, and the CPU time of this process and of those that ended in it."""
    start, cpu = time.perf_counter(), _cpu_s()
    yield
    for name, spent in ((stage, time.perf_counter() - start), (f"{stage}, CPU", _cpu_s() - cpu)):
        figures[name] = round(figures.get(name, 0.0) + spent, 3)


def _cpu_s() -> float:
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
            with timed(done, _STAGES[0]):
                block = home.catalogue.block(number)
            with timed(done, _STAGES[1]):
                batch = described_batch(block.items, [item.uid(CATALOGUE) for item in block.items], [None] * len(block.items), "raw")
                revisions = [0] * len(block.items)
                points = batch_points(batch, block.vectors, origin="file", revisions=revisions, recipe="raw", bm25=bm25)
            with timed(done, _STAGES[2]):
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
        vectors = _item_vectors(block, range(len(block.items)), facts)
        similar = starts @ vectors.T
        for row, example in enumerate(home.examples):
            if number == example // BLOCK:
                similar[row, example % BLOCK] = -2
        _keep_best(best[SIMILAR], similar, ids)
    home.figures["exact"] = {name: [[id for _, id in row] for row in rows] for name, rows in best.items()}
    home.figures["passing"] = passing
    home.save()


def _item_vectors(block: Block, places: Iterable[int], facts: FactWeights) -> Matrix:
    return np.stack([item_vector(block.vectors[at], block.items[at].facts(), facts) for at in places])


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


async def measure_latencies(home: ScaleHome, variant: Variant) -> None:
    """p50 and p99 of each case with one client and with many, as the gateway's client has them."""
    settings = variant.settings(home.path, home.size)
    await home.store(variant).switch(variant.name)
    replica = RetrieverReplica(settings, Metrics(NullSink()))
    await replica.start()
    client = RetrieverClient(send_to(replica), settings, Metrics(NullSink()))
    summaries: dict[str, dict[str, Any]] = {}
    try:
        for name, message in _cases(home).items():
            await _load(client, message, 1, home.size.seconds / 4)
            for clients in CLIENTS:
                cpu = time.process_time()
                result = await _load(client, message, clients, home.size.seconds)
                core_ms = (time.process_time() - cpu) * 1000 / max(1, len(result.latencies))
                summaries.setdefault(name, {})[str(clients)] = result.summary() | {"core_ms": round(core_ms, 2)}
            say(f"{variant.name}, {name}: {summaries[name]}")
    finally:
        await replica.close()
    busy = os.getloadavg()[0]
    home.of(variant)["latency"] = {"at": time.strftime("%Y-%m-%d %H:%M"), "load average": round(busy, 1), "cases": summaries}
    home.save()


def _cases(home: ScaleHome) -> dict[str, Callable[[int], RetrieverMessage[Any]]]:
    """A case -> its message of a number."""
    queries = home.catalogue.queries(_SEARCHES)

    def similar(n: int) -> RetrieverMessage[Any]:
        return Rank(ExampleQuery((Example(id=f"generated-{n * 7919 % home.size.items}"),), k=K))

    def text(condition: ItemFilter) -> Callable[[int], RetrieverMessage[Any]]:
        def message(n: int) -> RetrieverMessage[Any]:
            query = queries[n % len(queries)]
            return Rank(TextQuery(query.text, query.vector, "hybrid", K, condition), FINGERPRINT)

        return message

    cases: dict[str, Callable[[int], RetrieverMessage[Any]]] = {SIMILAR: similar}
    cases |= {f"text, {name}": text(condition) for name, condition in FILTERS.items()}
    return cases | {f"facets, {name}": lambda n, condition=condition: Facets(condition) for name, condition in FILTERS.items()}


async def _load(client: RetrieverClient, message: Callable[[int], RetrieverMessage[Any]], clients: int, seconds: float) -> Result:
    """A closed loop: each client waits for its answer."""
    result, numbers = Result(), count()
    start = time.perf_counter()

    async def one() -> None:
        while (sent := time.perf_counter()) - start < seconds:
            try:
                await client(message(next(numbers)), time.monotonic() + _DEADLINE_S)
            except OverloadedError:
                result.statuses[503] += 1
                await asyncio.sleep(0.01)
                continue
            result.latencies.append((time.perf_counter() - sent) * 1000)
            result.statuses[200] += 1

    await asyncio.gather(*(one() for _ in range(clients)))
    result.seconds = time.perf_counter() - start
    return result


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


async def build(home: ScaleHome, variant: Variant) -> None:
    """Everything but the latencies, which want a quiet machine."""
    await write(home)
    find_exactly(home)
    await build_graph(home, variant)
    say(f"{variant.name}: built")
    measure_memory(home, variant)
    await measure_recall(home, variant)
    say(f"{variant.name}: memory and recall measured")


def tables(figures: dict[str, Any]) -> str:
    """The figures that are there, as Markdown; what was not measured is empty."""
    variants: dict[str, dict[str, Any]] = figures.get("variants", {})
    items, parts = figures["items"], []
    heads = [*variants]
    took = figures.get("write", {})
    rows: list[list[object]] = [[f"{stage}, s", *[_seconds(took, stage) if name == SCAN else "" for name in heads]] for stage in _STAGES]
    rows.append(["graph, s", *[_seconds(each, "graph") for each in variants.values()]])
    rows.append(["graph, peak MB", *[each.get("graph, peak MB", "") for each in variants.values()]])
    parts.append(markdown([f"building {items:,} items, of that CPU", *heads], rows))
    memory = [(key, when) for when in ("opened", "after searches") for key in ("PSS", "anonymous", "files")]
    rows = [[f"{key}, {when}", *[_added(each, key, when, items) for each in variants.values()]] for key, when in memory]
    stored = sorted({part for each in variants.values() for part in each.get("disk", {})})
    rows += [[f"disk: {part}", *[_per_item(each.get("disk", {}).get(part), items) for each in variants.values()]] for part in stored]
    parts.append(markdown(["bytes an item", *heads], rows))
    rows = [
        [f"{case}, of {figures.get('passing', {}).get(case, items):,}", *[_recalls(each, case) for each in variants.values()]]
        for case in (*FILTERS, SIMILAR)
    ]
    parts.append(markdown([f"recall@{K}", *heads], rows))
    cases = list(dict.fromkeys(case for each in variants.values() for case in each.get("latency", {}).get("cases", {})))
    rows = [
        [f"{case}, {clients} {'client' if clients == 1 else 'clients'}", *[_latencies(each, case, clients) for each in variants.values()]]
        for case in cases
        for clients in CLIENTS
    ]
    rows += [[f"{case}, CPU of one, ms", *[_core_ms(each, case) for each in variants.values()]] for case in cases]
    rows.append(["load average at the end", *[each.get("latency", {}).get("load average", "") for each in variants.values()]])
    parts.append(markdown(["p50 / p99, ms (requests/s)", *heads], rows))
    return "\n\n".join(parts)


def _seconds(figures: dict[str, Any], stage: str) -> str:
    return f"{figures[stage]:.1f}, {figures[f'{stage}, CPU']:.1f}" if stage in figures else ""


def _added(figures: dict[str, Any], key: str, when: str, items: int) -> str:
    """What the index added to its process, an item."""
    memory = figures.get("memory")
    return "" if memory is None else _per_item(memory[when][key] - memory["before"][key], items)


def _per_item(size: int | None, items: int) -> str:
    return "" if size is None else f"{size / items:,.0f}"


def _recalls(figures: dict[str, Any], case: str) -> str:
    return " / ".join(f"{recall[case]:.3f}" for recall in figures.get("recall", {}).values())


def _latencies(figures: dict[str, Any], case: str, clients: int) -> str:
    one = figures.get("latency", {}).get("cases", {}).get(case, {}).get(str(clients))
    return "" if one is None else f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f} ({one['rps']:.0f})"


def _core_ms(figures: dict[str, Any], case: str) -> str:
    one = figures.get("latency", {}).get("cases", {}).get(case, {}).get(str(CLIENTS[0]))
    return "" if one is None else f"{one['core_ms']:.1f}"


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
