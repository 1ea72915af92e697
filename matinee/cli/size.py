"""`matinee size`: a load -> pods, memory, disk, cost and values for the chart. Asks no server and loads no model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, out, print_json
from matinee.errors import SettingsError
from matinee.files import write_atomically
from matinee.settings.index import Quantization
from matinee.settings.load import merge
from matinee.sizing import curves
from matinee.sizing.floor import floor
from matinee.sizing.nodes import NodeCount, NodeKind, count_nodes, nodes_cost_a_day, parse_node
from matinee.sizing.plan import Load, Plan, Pods, Prices, cost_a_day, plan
from matinee.sizing.values import values


@explain_errors()
def size(
    items: Annotated[int | None, typer.Argument(min=1, help="items of the catalogue")] = None,
    dimensions: Annotated[int, typer.Option(min=1, help="numbers of a text vector, as `matinee info` shows")] = 384,
    requests: Annotated[float, typer.Option(min=0.001, help="requests a second at the peak")] = 10,
    text: Annotated[float, typer.Option(min=0, max=1, help="share of them that are text searches; the others are similar items")] = 0.5,
    gpu: Annotated[bool, typer.Option("--gpu", help="embed on GPUs")] = False,
    ha: Annotated[bool, typer.Option("--ha", help="two of everything but the head; set gcsFaultTolerance against its loss")] = False,
    on_disk: Annotated[bool, typer.Option("--on-disk", help="keep dense vectors and payload on disk")] = False,
    quantization: Annotated[
        Quantization, typer.Option(help="small copies of dense vectors, which stay in memory; give --on-disk too to save any")
    ] = "none",
    cpu_factor: Annotated[
        float,
        typer.Option(min=0.01, help="CPU time of your cores, as a multiple of the measured ones'; up to 4 where they lack AVX512-BF16"),
    ] = 1,
    core_hour: Annotated[float | None, typer.Option(min=0, help="price of a core for an hour")] = None,
    memory_hour: Annotated[float | None, typer.Option(min=0, help="price of a GiB of memory for an hour")] = None,
    gpu_hour: Annotated[float | None, typer.Option(min=0, help="price of a GPU for an hour")] = None,
    disk_month: Annotated[float | None, typer.Option(min=0, help="price of a GiB of disk for a month")] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(help="a kind of node, to count them: CPUS,GIB that pods may use, then GPUS,PRICE of an hour if you like; repeatable"),
    ] = None,
    floor_of: Annotated[
        list[Path] | None,
        typer.Option(
            "--floor", help="instead of a load: values files of the chart, values.yaml first; what always runs then, and its cost"
        ),
    ] = None,
    values_file: Annotated[Path | None, typer.Option("--values", help="write values for the chart to this file")] = None,
    as_json: Json = False,
) -> None:
    """What an installation needs for a load: pods, nodes, memory, Qdrant's shards, and a day's cost if you give prices.

    matinee size 10000000 --requests 1000 --ha --gpu --values values-mine.yaml
    matinee size --floor helm/matinee/values.yaml --floor values-mine.yaml --core-hour 0.04 --gpu-hour 1.5
    """
    prices = Prices(core_h=core_hour, memory_gib_h=memory_hour, gpu_h=gpu_hour, disk_gib_month=disk_month)
    if (items is None) == (not floor_of):
        raise SettingsError("give the number of items of a load, or values files of the chart with --floor")
    kinds = [parse_node(text) for text in node or ()]
    if floor_of:
        pods = floor(_read_values(floor_of))
        _show_floor(pods, prices, count_nodes(pods, kinds) if kinds else (), as_json=as_json)
        return
    load = Load(
        items=items or 1,
        dimensions=dimensions,
        requests=requests,
        text_share=text,
        gpu=gpu,
        ha=ha,
        on_disk=on_disk,
        quantization=quantization,
        cpu_factor=cpu_factor,
    )
    _show_plan(plan(load), kinds, prices, values_file, as_json=as_json)


def _show_plan(made: Plan, kinds: Sequence[NodeKind], prices: Prices, values_file: Path | None, *, as_json: bool) -> None:
    load = made.load
    nodes = count_nodes(made.pods, kinds, apart=load.ha) if kinds else ()
    if values_file is not None:
        write_atomically(values_file, f"# Made by `matinee size`: {_words(load)}.\n{yaml.safe_dump(values(made), sort_keys=False)}")
    if as_json:
        print_json(asdict(made) | _figures(made, prices) | _nodes_report(nodes))
        return
    _show(made, made.cost_a_day(prices), nodes)


def _figures(made: Plan, prices: Prices) -> dict[str, Any]:
    known = {name: asdict(curves.read()[name]) for name in sorted(made.used)}
    return {"used": known, "cost_a_day": made.cost_a_day(prices), "values": values(made)}


def _nodes_report(nodes: Sequence[NodeCount]) -> dict[str, Any]:
    return {"nodes": [asdict(each) for each in nodes], "nodes_cost_a_day": nodes_cost_a_day(nodes) if nodes else None}


def _read_values(paths: list[Path]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in paths:
        try:
            values = merge(values, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except (OSError, yaml.YAMLError) as error:
            raise SettingsError(f"{path} is not a readable values file: {error}") from None
    return values


def _show_floor(pods: Sequence[Pods], prices: Prices, nodes: Sequence[NodeCount], *, as_json: bool) -> None:
    cost = cost_a_day(pods, prices)
    if as_json:
        print_json({"pods": [asdict(each) for each in pods], "cost_a_day": cost} | _nodes_report(nodes))
        return
    out.print(_pods_table(pods, "what always runs"))
    _show_nodes(nodes)
    if cost is not None:
        out.print(f"cost: {cost:.2f} a day, in the currency of the prices")


def _pods_table(pods: Sequence[Pods], title: str) -> Table:
    table = Table("pods", "always", "at most", "CPUs", "memory, GiB", "GPUs", "disk, GiB", box=None, title=title)
    for each in pods:
        table.add_row(
            each.name, *(f"{number:g}" for number in (each.count, each.most, each.cpus, each.memory_gib, each.gpus, each.disk_gib))
        )
    return table


def _show_nodes(nodes: Sequence[NodeCount]) -> None:
    if not nodes:
        return
    table = Table("nodes of", "always", "at most", "a day, each", box=None)
    for each in nodes:
        kind = each.node
        gpus = f", {kind.gpus} GPU{'s' if kind.gpus > 1 else ''}" if kind.gpus else ""
        price = "" if kind.hour is None else f"{24 * kind.hour:.2f}"
        table.add_row(f"{kind.cpus:g} CPUs, {kind.memory_gib:g} GiB{gpus}", str(each.always), str(each.most), price)
    out.print(table)
    if (cost := nodes_cost_a_day(nodes)) is not None:
        out.print(f"cost of the nodes that always run: {cost:.2f} a day, without disks")


def _show(made: Plan, cost: float | None, nodes: Sequence[NodeCount]) -> None:
    out.print(_pods_table(made.pods, _words(made.load)))
    _show_nodes(nodes)
    shards = "" if made.engine == "edge" else f", {made.shards} shards, {made.replication} of each"
    out.print(f"index: {made.engine}{shards}; {made.item_bytes:,.0f} bytes of memory an item")
    out.print("replicas: " + ", ".join(f"{count} of {part}" for part, count in made.replicas.items()))
    out.print(f"first ingest: {made.ingest_core_hours:.2g} core-hours")
    if cost is not None:
        out.print(f"cost: {cost:.2f} a day, in the currency of the prices")
    for measured, title in (
        (True, "measured on 2 cores, times with AVX512-BF16 and 9,827 items, bytes with 100,000 items; extrapolated to this load"),
        (False, "worked out or assumed: check"),
    ):
        out.print(f"\n[bold]{title}[/]")
        for name in sorted(made.used):
            figure = curves.read()[name]
            if figure.measured == measured:
                out.print(f"  {figure.value:g}: {figure.what} ({figure.source})")


def _words(load: Load) -> str:
    flags = [word for word, on in (("GPUs", load.gpu), ("high availability", load.ha), ("vectors on disk", load.on_disk)) if on]
    text = f"{load.items:,} items of {load.dimensions} dimensions, {load.requests:g} requests/s, {load.text_share:.0%} of them text"
    if load.quantization != "none":
        flags.append(f"quantization {load.quantization}")
    slower = [] if load.cpu_factor == 1 else [f"{load.cpu_factor:g} times the CPU time"]
    return ", ".join([text, *flags, *slower])
