"""A load -> pods, replicas, memory, disk, shards and a day's cost. Every figure comes from `curves`, and the plan names those it used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matinee.errors import SettingsError
from matinee.index.item_vector import FACTS_DIMENSION
from matinee.settings.index import Quantization
from matinee.sizing import curves

GIB = 2**30
_MOST_POD_GIB, _MOST_POD_CPUS = 64, 16
_POD_CPUS = 8
_GPU_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked for. `requests` a second at the peak, `text_share` of them are text searches, the others similar items.

    `on_disk` keeps dense vectors and payload out of memory. `quantization` adds small copies of the dense vectors, which stay in memory.
    `ha`: two of everything but the head. `cpu_factor`: how many times the CPU time of the figures' machine its cores need.
    """

    items: int
    dimensions: int = 384
    requests: float = 10
    text_share: float = 0.5
    gpu: bool = False
    ha: bool = False
    on_disk: bool = False
    quantization: Quantization = "none"
    cpu_factor: float = 1

    def __post_init__(self) -> None:
        if self.items < 1 or self.dimensions < 1 or min(self.requests, self.cpu_factor) <= 0 or not 0 <= self.text_share <= 1:
            raise SettingsError(
                "items and dimensions must be at least 1, requests and the CPU factor above 0, and the share of text from 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Of an hour of one core, of one GiB of memory and of one GPU, and of one GiB of disk a month. None: not given."""

    core_h: float | None = None
    memory_gib_h: float | None = None
    gpu_h: float | None = None
    disk_gib_month: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pods:
    """Pods of one kind that always run; `most` while load or a roll-over wants more."""

    name: str
    count: int
    most: int
    cpus: float
    memory_gib: int
    gpus: int = 0
    disk_gib: int = 0


def cost_a_day(pods: Sequence[Pods], prices: Prices) -> float | None:
    """Of the pods that always run. None where a price is missing that they need."""
    parts = (
        (prices.core_h, 24 * sum(each.count * each.cpus for each in pods)),
        (prices.memory_gib_h, 24 * sum(each.count * each.memory_gib for each in pods)),
        (prices.gpu_h, 24 * sum(each.count * each.gpus for each in pods)),
        (prices.disk_gib_month, sum(each.count * each.disk_gib for each in pods) * 12 / 365),
    )
    # Many clouds price cores with their memory, and a laptop's disk costs nothing: only cores and GPUs must have a price.
    if prices.core_h is None or (prices.gpu_h is None and parts[2][1]):
        return None
    return sum((price or 0) * amount for price, amount in parts)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The result. `used`: names of the figures behind it."""

    load: Load
    engine: Literal["edge", "qdrant"]
    pods: tuple[Pods, ...]
    replicas: dict[str, int]
    shards: int
    replication: int
    item_bytes: float
    ingest_core_hours: float
    used: frozenset[str] = field(default_factory=frozenset)

    def cost_a_day(self, prices: Prices) -> float | None:
        return cost_a_day(self.pods, prices)


class _Figures:
    """Reads figures and remembers which. Those of a core are worked out for slower ones: `cpu_factor`."""

    def __init__(self, cpu_factor: float) -> None:
        self.used: set[str] = set()
        self._cpu_factor = cpu_factor

    def __getitem__(self, name: str) -> float:
        self.used.add(name)
        value = curves.read()[name].value
        if name.endswith("_core_ms"):
            return value * self._cpu_factor
        return value / self._cpu_factor if name.endswith("_per_core_s") else value


def plan(load: Load) -> Plan:
    """The installation for `load`. Raises `SettingsError` where one of its pods would be larger than any that is planned here."""
    figure = _Figures(load.cpu_factor)
    least = 2 if load.ha else 1
    texts, similar = load.requests * load.text_share, load.requests * (1 - load.text_share)
    app_cores = (texts * figure["text_core_ms"] + similar * figure["similar_core_ms"]) / 1000 / figure["utilisation"]
    embed_cores = texts * figure["encode_core_ms"] / 1000 / figure["utilisation"]
    # Gateway and retriever take about half each, and a replica is a process: one core at most.
    each = max(least, math.ceil(app_cores / 2))
    replicas = {"serving": each, "index": each}
    if load.gpu:
        replicas["embedder"] = max(least, math.ceil(texts / figure["embed_gpu_per_s"]))
    else:
        replicas["embedder"] = max(least, math.ceil(embed_cores))
    vector, item = 4 * load.dimensions, 4 * (load.dimensions + FACTS_DIMENSION)
    graph = 2 * figure["graph_bytes"]
    words = figure["bm25_bytes"] + figure["title_bytes"] + figure["point_bytes"]
    # `on_disk` moves the payload too, and without it Qdrant holds the payload in memory. Graphs and words it moves as well, but a search
    # reads so much of them that the page cache has to hold them.
    copies = 0.0 if load.quantization == "none" else (vector + item) / 4 * figure[f"{load.quantization}_number_bytes"]
    in_memory = graph + words + copies + (0 if load.on_disk else vector + item + figure["payload_bytes"])
    on_disk = (vector + item + copies + graph + words) * figure["disk_overhead"] + figure["payload_bytes"]
    common: dict[str, Any] = {"load": load, "replicas": replicas, "item_bytes": in_memory}
    ingest = load.items / figure["ingest_items_per_core_s"] / 3600
    head = Pods(name="head", count=1, most=1, cpus=2.5, memory_gib=9 if load.gpu or each > 1 else 4)
    plain = load.quantization == "none" and not (load.ha or load.gpu or load.on_disk)
    small = load.items <= figure["embedded_items"] and plain and set(replicas.values()) == {1}
    if small:
        # As values-cpu.yaml, whose sizes are measured.
        worker = Pods(name="cpu", count=1, most=1, cpus=4, memory_gib=11, disk_gib=10)
        head = Pods(name="head", count=1, most=1, cpus=2, memory_gib=4)
        return Plan(
            engine="edge", pods=(head, worker), shards=1, replication=1, ingest_core_hours=ingest, used=frozenset(figure.used), **common
        )
    replication = 2 if load.ha else 1
    # At the end of a build the new version lies in memory beside the current one.
    memory = in_memory * load.items * 2 * replication / figure["fill"] / GIB
    disk = on_disk * load.items * 3 * replication / GIB
    search_cores = load.requests * figure["search_core_ms"] / 1000 / figure["utilisation"]
    nodes = _qdrant_pods(memory, search_cores, at_least=3 if load.ha else 1)
    qdrant = Pods(
        name="qdrant",
        count=nodes,
        most=nodes,
        cpus=max(1, math.ceil(search_cores / nodes)),
        memory_gib=max(2, math.ceil(memory / nodes)),
        disk_gib=max(5, math.ceil(disk / nodes)),
    )
    pods = (head, *_workers(load, replicas), qdrant)
    # Two for each pod: its searches run in parallel, and the number of pods can double.
    shards = 1 if nodes == 1 else 2 * nodes
    return Plan(
        engine="qdrant", pods=pods, shards=shards, replication=replication, ingest_core_hours=ingest, used=frozenset(figure.used), **common
    )


def _qdrant_pods(memory_gib: float, cores: float, *, at_least: int) -> int:
    nodes = max(at_least, math.ceil(memory_gib / _MOST_POD_GIB), math.ceil(cores / _MOST_POD_CPUS))
    # Two have no majority when one is lost.
    return 3 if nodes == 2 else nodes


def _workers(load: Load, replicas: dict[str, int]) -> list[Pods]:
    """Room for every replica, and for the copies that a roll-over starts beside them."""
    web = replicas["serving"] + replicas["index"]
    # GiB of a replica: 1 of gateway and retriever, 2.5 of an embedder on a GPU and 1.5 on a CPU, in the 85 % that Ray hands out.
    gib = web * 1.0 + (0 if load.gpu else replicas["embedder"] * 1.5)
    cpus = web + (0 if load.gpu else replicas["embedder"])
    least = 2 if load.ha else 1
    count = max(least, math.ceil(cpus / _POD_CPUS))
    most = max(count, math.ceil(2 * cpus / _POD_CPUS))
    memory = math.ceil(max(2 * gib / most, gib / count) / 0.85) + 4
    workers = [Pods(name="cpu", count=count, most=most, cpus=_POD_CPUS, memory_gib=memory)]
    if load.gpu:
        gpus = max(least, math.ceil(replicas["embedder"] * _GPU_SHARE))
        gpus_most = max(gpus, math.ceil(2 * replicas["embedder"] * _GPU_SHARE))
        workers.insert(0, Pods(name="gpu", count=gpus, most=gpus_most, cpus=6, memory_gib=24, gpus=1))
    return workers
