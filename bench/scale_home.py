"""The folder of `bench.scale`: its sizes, the variants of the index, and the figures of the stages that are done."""

import json
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.generated import BLOCK, Block, GeneratedCatalogue
from bench.local_server import BenchError
from matinee.files import write_atomically
from matinee.filters import ItemFilter
from matinee.index.build import new_manifest
from matinee.index.edge.store import EdgeStore
from matinee.index.item_vector import item_vector
from matinee.index.types import Manifest
from matinee.settings.index import FactWeights
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from matinee.vectors import Matrix

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
STAGES = ("making items", "BM25 and points", "writing")


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
        return np.concatenate([item_vectors(self.catalogue.block(number), chosen, self.facts) for number, chosen in places.items()])

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


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def item_vectors(block: Block, places: Iterable[int], facts: FactWeights) -> Matrix:
    return np.stack([item_vector(block.vectors[at], block.items[at].facts(), facts) for at in places])
