"""Pods -> the nodes that they fit on. Knows no load (`sizing.plan`), and asks no cloud which nodes it has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from matinee.errors import SettingsError
from matinee.sizing.plan import Pods

_NUMBER = r"(\d+(?:\.\d+)?)"
_NODE = re.compile(rf"{_NUMBER},{_NUMBER}(?:,(\d+)(?:,{_NUMBER})?)?")


@dataclass(frozen=True, kw_only=True)
class NodeKind:
    """What pods may use of one node, and its price an hour; None: not given."""

    cpus: float
    memory_gib: float
    gpus: int = 0
    hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class NodeCount:
    """Nodes of one kind: for the pods that always run, and for the most there may be."""

    node: NodeKind
    always: int
    most: int


@dataclass(kw_only=True)
class _Open:
    """A node with pods on it, and what is left of it."""

    node: NodeKind
    cpus: float
    memory_gib: float
    gpus: int
    pods: set[str] = field(default_factory=set)


def parse_node(text: str) -> NodeKind:
    """`CPUS,GIB[,GPUS[,PRICE]]` as a node. Raises `SettingsError`."""
    match = _NODE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise SettingsError(
            f"--node {text}: write CPUS,GIB, such as 8,32; for a node with GPUs and with its price an hour CPUS,GIB,GPUS,PRICE, "
            "such as 8,64,1,1.20"
        )
    cpus, memory_gib, gpus, hour = match.groups()
    return NodeKind(cpus=float(cpus), memory_gib=float(memory_gib), gpus=int(gpus or 0), hour=None if hour is None else float(hour))


def count_nodes(pods: Sequence[Pods], kinds: Sequence[NodeKind], *, apart: bool = False) -> tuple[NodeCount, ...]:
    """How many nodes of each kind the pods need, largest pods first. `apart`: no two pods of one name share a node.

    Nodes with GPUs are for pods with GPUs alone, as their taints keep others away, unless all nodes have some. Raises `SettingsError`
    where a pod fits no node.
    """
    always = _pack([(each, each.count) for each in pods], kinds, apart=apart)
    most = _pack([(each, each.most) for each in pods], kinds, apart=apart)
    return tuple(NodeCount(node=kind, always=always.count(kind), most=most.count(kind)) for kind in dict.fromkeys(kinds))


def nodes_cost_a_day(counts: Sequence[NodeCount]) -> float | None:
    """Of the nodes that always run. None where one of them has no price."""
    used = [count for count in counts if count.always]
    prices = [count.node.hour for count in used if count.node.hour is not None]
    return 24 * sum(count.always * hour for count, hour in zip(used, prices, strict=True)) if len(prices) == len(used) else None


def _pack(pods: Sequence[tuple[Pods, int]], kinds: Sequence[NodeKind], *, apart: bool) -> list[NodeKind]:
    """First fit, the largest pods first. A new node is the cheapest kind that the pod fits on, or the smallest where prices lack."""
    open_nodes: list[_Open] = []
    priced = all(kind.hour is not None for kind in kinds)
    ordered = sorted(kinds, key=lambda kind: (kind.hour if priced else 0, kind.gpus, kind.cpus, kind.memory_gib))
    only_gpus = all(kind.gpus for kind in kinds)
    for pod, count in sorted(pods, key=lambda entry: (entry[0].gpus, entry[0].memory_gib, entry[0].cpus), reverse=True):
        # A volume alone needs no node.
        if not (pod.cpus or pod.memory_gib):
            continue
        suited = [kind for kind in ordered if only_gpus or bool(kind.gpus) == bool(pod.gpus)]
        fitting = [kind for kind in suited if _fits(pod, kind.cpus, kind.memory_gib, kind.gpus)]
        if count and not fitting:
            gpus = f" and {pod.gpus:g} GPU{'s' if pod.gpus > 1 else ''}" if pod.gpus else ""
            raise SettingsError(
                f"--node: a pod {pod.name} of {pod.cpus:g} CPUs, {pod.memory_gib:g} GiB{gpus} fits on none of these nodes: "
                "name a larger one"
            )
        for _ in range(count):
            with_room = (
                each
                for each in open_nodes
                if each.node in suited and not (apart and pod.name in each.pods) and _fits(pod, each.cpus, each.memory_gib, each.gpus)
            )
            place = next(with_room, None)
            if place is None:
                kind = fitting[0]
                place = _Open(node=kind, cpus=kind.cpus, memory_gib=kind.memory_gib, gpus=kind.gpus)
                open_nodes.append(place)
            place.cpus, place.memory_gib, place.gpus = place.cpus - pod.cpus, place.memory_gib - pod.memory_gib, place.gpus - pod.gpus
            place.pods.add(pod.name)
    return [each.node for each in open_nodes]


def _fits(pod: Pods, cpus: float, memory_gib: float, gpus: int) -> bool:
    return pod.cpus <= cpus and pod.memory_gib <= memory_gib and pod.gpus <= gpus
