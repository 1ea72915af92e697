"""`matinee size`: a load -> pods, memory, disk, cost and values for the chart. Asks no server and loads no model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, out, print_json
from matinee.files import write_atomically
from matinee.sizing import curves
from matinee.sizing.plan import Load, Plan, Prices, plan
from matinee.sizing.values import values


@explain_errors()
def size(
    items: Annotated[int, typer.Argument(min=1, help="items of the catalogue")],
    dimensions: Annotated[int, typer.Option(min=1, help="numbers of a text vector, as `matinee info` shows")] = 384,
    requests: Annotated[float, typer.Option(min=0.001, help="requests a second at the peak")] = 10,
    text: Annotated[float, typer.Option(min=0, max=1, help="share of them that are text searches; the others are similar items")] = 0.5,
    gpu: Annotated[bool, typer.Option("--gpu", help="embed on GPUs")] = False,
    ha: Annotated[bool, typer.Option("--ha", help="two of everything but the head; set gcsFaultTolerance against its loss")] = False,
    on_disk: Annotated[bool, typer.Option("--on-disk", help="keep dense vectors and payload on disk")] = False,
    cpu_factor: Annotated[
        float,
        typer.Option(min=0.01, help="CPU time of your cores, as a multiple of the measured ones'; up to 4 where they lack AVX512-BF16"),
    ] = 1,
    core_hour: Annotated[float | None, typer.Option(min=0, help="price of a core for an hour")] = None,
    memory_hour: Annotated[float | None, typer.Option(min=0, help="price of a GiB of memory for an hour")] = None,
    gpu_hour: Annotated[float | None, typer.Option(min=0, help="price of a GPU for an hour")] = None,
    disk_month: Annotated[float | None, typer.Option(min=0, help="price of a GiB of disk for a month")] = None,
    values_file: Annotated[Path | None, typer.Option("--values", help="write values for the chart to this file")] = None,
    as_json: Json = False,
) -> None:
    """What an installation needs for a load: pods, memory, Qdrant's shards, and a day's cost if you give prices.

    matinee size 10000000 --requests 1000 --ha --gpu --values values-mine.yaml
    """
    load = Load(
        items=items, dimensions=dimensions, requests=requests, text_share=text, gpu=gpu, ha=ha, on_disk=on_disk, cpu_factor=cpu_factor
    )
    made = plan(load)
    cost = made.cost_a_day(Prices(core_h=core_hour, memory_gib_h=memory_hour, gpu_h=gpu_hour, disk_gib_month=disk_month))
    if values_file is not None:
        write_atomically(values_file, f"# Made by `matinee size`: {_words(load)}.\n{yaml.safe_dump(values(made), sort_keys=False)}")
    if as_json:
        known = {name: asdict(curves.read()[name]) for name in sorted(made.used)}
        print_json(asdict(made) | {"used": known, "cost_a_day": cost, "values": values(made)})
        return
    _show(made, cost)


def _show(made: Plan, cost: float | None) -> None:
    table = Table("pods", "always", "at most", "CPUs", "memory, GiB", "GPUs", "disk, GiB", box=None, title=_words(made.load))
    for pods in made.pods:
        table.add_row(
            pods.name, *(f"{number:g}" for number in (pods.count, pods.most, pods.cpus, pods.memory_gib, pods.gpus, pods.disk_gib))
        )
    out.print(table)
    shards = "" if made.engine == "edge" else f", {made.shards} shards, {made.replication} of each"
    out.print(f"index: {made.engine}{shards}; {made.item_bytes:,.0f} bytes of memory an item")
    out.print("replicas: " + ", ".join(f"{count} of {part}" for part, count in made.replicas.items()))
    out.print(f"first ingest: {made.ingest_core_hours:.2g} core-hours")
    if cost is not None:
        out.print(f"cost: {cost:.2f} a day, in the currency of the prices")
    for measured, title in (
        (True, "measured on 2 cores of an AMD EPYC with AVX512-BF16 and 9,827 items, and extrapolated to this load"),
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
    slower = [] if load.cpu_factor == 1 else [f"{load.cpu_factor:g} times the CPU time"]
    return ", ".join([text, *flags, *slower])
