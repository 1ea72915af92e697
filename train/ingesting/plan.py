"""Which engine an ingest runs on, and how many processes do what. Does not start or ask Ray."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from matinee.errors import SettingsError
from matinee.settings import local_ray
from matinee.settings.tree import Settings

Engine = Literal["auto", "process", "ray"]

AUTO_ITEMS = 20_000
"""Below, the start of the workers costs more than they save."""
AUTO_DESCRIPTIONS = 500
"""The same of descriptions, which take far longer."""
_QDRANT_WRITERS = 4
_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the work of a job in bulk is spread."""

    engine: Annotated[
        Engine,
        typer.Option(
            help="process: all in this process; ray: Ray Data, on the cluster of RAY_ADDRESS or on processes of this machine; "
            f"auto: ray on a cluster with room for two workers, for {AUTO_ITEMS:,} items or more ({AUTO_DESCRIPTIONS} to describe)"
        ),
    ] = "auto"
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="engine ray: processes that embed (or describe), one GPU each where there are GPUs; by default as many as fit"
        ),
    ] = None
    threads: Annotated[
        int, typer.Option(min=0, help=f"engine ray: CPU threads of each worker; 0: {_THREADS}, or all cores of a smaller machine")
    ] = 0


BY_SIZE = EngineOptions()
"""Nothing is said: the size of the catalogue and the cluster decide."""


@dataclass(frozen=True)
class Resources:
    """What a cluster has, whether it is in use or not."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pool:
    """So many processes, with so much each. `threads` 0: one for each core."""

    size: int
    cpus: float
    gpus: float
    threads: int


@dataclass(frozen=True)
class SpreadPlan:
    """The processes of a run on Ray. `describe` is None where the recipe wants no descriptions."""

    embed: Pool
    describe: Pool | None
    writers: int

    @property
    def cpus(self) -> float:
        return sum(pool.size * pool.cpus for pool in (self.embed, self.describe) if pool is not None)


def wants_ray(options: EngineOptions, items: int, *, via_api: bool = False, least: int = AUTO_ITEMS) -> bool:
    """Whether Ray is worth asking for room. Raises `SettingsError` where it was asked for and can't do it."""
    if options.engine == "ray" and via_api:
        raise SettingsError("--engine ray spreads models over a cluster, but --via api uses those of the server: leave one of the two away")
    if options.engine == "auto":
        return not via_api and not local_ray.is_local() and items >= least
    return options.engine == "ray"


def machine() -> Resources:
    """What Ray may use of this machine, where it starts one for this run alone."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Resources(cores, torch.cuda.device_count())


def make_plan(options: EngineOptions, room: Resources, settings: Settings) -> SpreadPlan | None:
    """The pools that fit; None where `auto` finds no room for two workers. Raises `SettingsError` where too little room was asked for."""
    describes = settings.index.recipe != "raw"
    # A server that describes needs nothing here.
    local_enhancer = describes and settings.enhancer.engine == "local"
    if room.gpus >= 1:
        pools: tuple[Pool, Pool | None] | None = _on_gpus(options, int(room.gpus), describes=describes, local_enhancer=local_enhancer)
    else:
        pools = _on_cpus(options, room.cpus, describes=describes, local_enhancer=local_enhancer)
    workers = sum(pool.size for pool in pools or () if pool is not None and (pool.cpus or pool.gpus))
    if pools is None or (options.engine == "auto" and workers < 2):
        if options.engine == "auto":
            return None
        raise SettingsError(_too_little(options, room, describes=local_enhancer))
    return SpreadPlan(*pools, _QDRANT_WRITERS if settings.index.engine == "qdrant" else 1)


def only_pool(options: EngineOptions, room: Resources) -> Pool | None:
    """The processes of a job that does nothing but embed, or describe; None and errors as of `make_plan`."""
    threads = options.threads or max(1, min(_THREADS, int(room.cpus)))
    fitting = int(room.gpus) or int(room.cpus // threads)
    size = options.workers or fitting
    if options.engine == "auto" and size < 2:
        return None
    if room.gpus >= 1:
        return Pool(size, 0, 1, options.threads)
    if not fitting or (local_ray.is_local() and size > fitting):
        raise SettingsError(_too_little(options, room, describes=False))
    return Pool(size, threads, 0, threads)


def _too_little(options: EngineOptions, room: Resources, *, describes: bool) -> str:
    workers, threads = options.workers or 1, options.threads or 1
    describing = " and one to describe" if describes else ""
    return (
        f"--engine ray: {workers} worker{'s' if workers > 1 else ''} of {threads} threads{describing} need "
        f"{(workers + describes) * threads} CPUs, and there are {room.cpus:g}: lower --workers or --threads, or use --engine process"
    )


def _on_gpus(options: EngineOptions, gpus: int, *, describes: bool, local_enhancer: bool) -> tuple[Pool, Pool | None]:
    """A GPU each; descriptions take far longer than vectors, so they get all but one, or half of the only one."""
    if not local_enhancer:
        size = options.workers or gpus
        return Pool(size, 0, 1, options.threads), Pool(1, 0, 0, 0) if describes else None
    if gpus == 1:
        return Pool(1, 0, 0.5, options.threads), Pool(1, 0, 0.5, options.threads)
    # One that embeds may never wait for one that describes, which then has no room.
    size = min(options.workers or 1, gpus - 1)
    return Pool(size, 0, 1, options.threads), Pool(gpus - size, 0, 1, options.threads)


def _on_cpus(options: EngineOptions, cpus: float, *, describes: bool, local_enhancer: bool) -> tuple[Pool, Pool | None] | None:
    pools = 2 if local_enhancer else 1
    threads = options.threads or max(1, min(_THREADS, int(cpus // pools)))
    fitting = int(cpus // threads)
    if fitting < pools or (local_ray.is_local() and options.workers is not None and options.workers + pools - 1 > fitting):
        return None
    if not local_enhancer:
        return Pool(options.workers or fitting, threads, 0, threads), Pool(1, 0, 0, 0) if describes else None
    size = min(options.workers or 1, fitting - 1)
    return Pool(size, threads, 0, threads), Pool(fitting - size, threads, 0, threads)
