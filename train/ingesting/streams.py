"""Streams of Ray Data: their settings, their stages, the actors beside them, and their errors as ours. Knows no stage.

Imports Ray: only after `matinee.settings.local_ray.secure`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError, RayTaskError

from matinee.errors import MatineeError
from train.ingesting.plan import Pool, Resources

BLOCK_BYTES = 256 << 10
"""What travels at a time: about a batch of items. A killed worker's block is made again."""
_INIT_DEATHS = 3


class TableSource(Datasource):  # type: ignore[misc]
    """Tables for Ray Data, by one task a function of `reads`. What one of them gives may be joined to larger blocks."""

    def __init__(self, name: str, reads: Sequence[Callable[[], Iterator[pa.Table]]]) -> None:
        super().__init__()
        self._name, self._reads = name, reads

    def get_name(self) -> str:
        return self._name

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(read, unknown) for read in self._reads]


def here() -> dict[str, Any]:
    """Options of what runs beside the driver, which has the files, and takes no CPU of the stages."""
    return {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}


def source(name: str, *reads: Callable[[], Iterator[pa.Table]]) -> Dataset:
    """A stream of the tables that `reads` give on the driver's machine."""
    return ray.data.read_datasource(TableSource(name, reads), override_num_blocks=len(reads), **here())


def stage(stream: Dataset, worker: type[Any], size: int, batch: int, arguments: dict[str, Any], **each: Any) -> Dataset:
    """The stream through so many processes, so many rows at a time; `each` process gets so much of the machine."""
    return stream.map_batches(
        worker,
        batch_size=batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=size),
        fn_constructor_kwargs=arguments,
        **each,
    )


def resources(pool: Pool) -> dict[str, float]:
    return {"num_cpus": pool.cpus, "num_gpus": pool.gpus}


def actor(worker: type[Any], pool: Pool) -> Any:
    return ray.remote(worker).options(**resources(pool))


def ask_once(worker: type[Any], pool: Pool, arguments: dict[str, Any], call: Callable[[Any], Any]) -> Any:
    """The answer of one process of the pool. It ends afterwards: its place is for the stream."""
    process = actor(worker, pool).remote(**arguments)
    try:
        with explain_errors():
            return ray.get(call(process))
    finally:
        ray.kill(process)


def tables(stream: Dataset) -> Iterator[pa.Table]:
    """What comes out of the stream.

    Not by `iter_batches`: its prefetching thread may stay for good, and keeps the last block, and so the worker that made it.
    """
    for bundle in stream.iter_internal_ref_bundles():
        yield pa.concat_tables(ray.get([*bundle.block_refs]))


@contextmanager
def context() -> Iterator[None]:
    """Ray Data's settings for one stream; its own progress bars and messages are not shown beside ours."""
    chosen = DataContext.get_current().copy()
    chosen.enable_progress_bars = False
    chosen.print_on_execution_start = False
    chosen.target_max_block_size = BLOCK_BYTES
    chosen.raise_original_map_exception = True
    chosen.max_consecutive_actor_init_deaths = _INIT_DEATHS
    messages = logging.getLogger("ray.data")
    before = messages.level
    messages.setLevel(logging.CRITICAL)
    try:
        with DataContext.current(chosen):
            yield
    finally:
        messages.setLevel(before)


@contextmanager
def explain_errors() -> Iterator[None]:
    """Errors of workers as ours."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, MatineeError):
            raise error.cause from None
        raise MatineeError(f"a worker failed: {error.cause!r}. Run it again: it goes on from what is kept") from error
    except RayError as error:
        raise MatineeError(f"the cluster lost a worker for good: {error}. Run it again: it goes on from what is kept") from error


def room() -> Resources:
    """What the cluster has that this process has joined."""
    has = ray.cluster_resources()
    return Resources(has.get("CPU", 0), has.get("GPU", 0))
