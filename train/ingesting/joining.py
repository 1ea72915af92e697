"""A Ray for the time of one job: the cluster that `RAY_ADDRESS` names, or one that is started on this machine.

Imports Ray when it is used.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from matinee.settings import local_ray

_STORE_BYTES = 256 << 20
"""Blocks are small, and few are under way."""


@contextmanager
def join_ray(cpus: float) -> Iterator[None]:
    """One that this process has joined already is used, and left as it is. `cpus` are for one that is started here.

    What Ray prints of its workers goes to stderr: stdout is the job's.
    """
    local_ray.secure()
    # Ray Data's own actors have arguments of a kind that Ray's core calls an error at each start.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    here = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES} if local_ray.is_local() else {}
    local_ray.start(ray.init, logging_level="warning", log_to_driver=False, **here)
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()
