"""The graph as Ray Serve deployments, on a Ray that this command starts on this machine. Imports Ray only once its environment is set."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

import httpx

from matinee.errors import MatineeError, SettingsError
from matinee.settings import local_ray
from matinee.settings.tree import PREFIX, Settings

READY_S = 300
WATCH_S = 1.0
_VITAL = frozenset({"gcs_server", "raylet"})
"""Processes without which Ray can't go on, and which nothing replaces on one machine."""


class _EndedError(MatineeError):
    """Ray has lost a process that it can't do without."""


def prepare(settings: Settings, *, metrics: bool) -> None:
    """Set what Ray reads when it is imported. Raises `SettingsError`."""
    if settings.serving.haproxy and local_ray.is_local():
        raise SettingsError(
            "serving.haproxy: on one machine HAProxy's statistics and the replicas' ports would answer on every interface without a token; "
            "leave it off here (the chart turns it on in a cluster, behind its NetworkPolicy)"
        )
    local_ray.secure(metrics=metrics)
    for part, key in (("INDEX", settings.index.api_key), ("ENHANCER", settings.enhancer.api_key)):
        if key is not None:
            # The replicas read it there, wherever this process has it from.
            os.environ[f"{PREFIX}{part}__API_KEY"] = key.get_secret_value()
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    # Serve restarts a proxy that was not ready in 5 s: on a slow machine it never was.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # uvicorn's own rule would let every local client name the address that limits count by: serving.trusted_proxies decides.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    if settings.serving.fast:
        os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "1")
    if settings.serving.haproxy:
        os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")


@contextlib.contextmanager
def running(settings: Settings, url: str, port: int, metrics_port: int | None, stop: threading.Event) -> Iterator[str | None]:
    """Ray and the graph, until the end of the `with`; yields the URL of the metrics, None where none are exported.

    SIGINT and SIGTERM set `stop`. Raises `MatineeError` where Ray does not start, or the gateway does not answer within `READY_S`.
    """
    import ray
    from ray import serve as ray_serve

    from serve.app import graph

    local_ray.start(ray.init, include_dashboard=False, logging_level="warning", num_cpus=_cpus(), _metrics_export_port=metrics_port or None)
    # Only now: Ray's start installs its own handlers, which would leave the replicas running.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    try:
        ray_serve.start(
            http_options={"host": settings.serving.host, "port": port, "request_timeout_s": settings.serving.deadline_s + 5},
            logging_config=quiet,
        )
        ray_serve.run(graph(settings), name="matinee", route_prefix="/", blocking=False, logging_config=quiet)
        if not _wait_ready(url, stop):
            raise MatineeError(f"the graph was not ready within {READY_S} s: the lines above, and the logs under /tmp/ray, say why")
        yield None if metrics_port is None else f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    except _EndedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
        _own_node().kill_all_processes(check_alive=False, allow_graceful=False)
        # Ray's own shutdown, which Python's exit would start, waits for processes that are gone. So exit without it.
        os._exit(error.exit_code)
    except BaseException:
        _stop()
        raise
    else:
        _stop()


def wait(stop: threading.Event) -> None:
    """Return once `stop` is set. Call it inside `running`, which ends the process with an exit code if Ray can't go on."""
    while not stop.wait(WATCH_S):
        ended = {name for name, _ in _own_node().dead_processes()} & _VITAL
        if ended:
            raise _EndedError(f"Ray can't go on: its process {', '.join(sorted(ended))} has ended; start the server again")


class _Node(Protocol):
    """Ray's own, which has no type."""

    def dead_processes(self) -> Iterable[tuple[str, object]]: ...
    def kill_all_processes(self, check_alive: bool, allow_graceful: bool) -> None: ...


def _own_node() -> _Node:
    """The Ray node of this process, with the processes that it started: none where it joined a cluster."""
    import ray

    node: _Node = ray._private.worker._global_node
    return node


def _stop() -> None:
    import ray
    from ray import serve as ray_serve

    ray_serve.shutdown()
    ray.shutdown()


def _cpus() -> int:
    """Ray's CPUs are places, not cores: enough of them for every replica of a small machine."""
    return max(4, os.cpu_count() or 1)


def _wait_ready(url: str, stop: threading.Event) -> bool:
    """True once the gateway answers. An absent index does not hold the start up: the page says what to do."""
    for _ in range(READY_S * 4):
        if stop.is_set():
            return True
        try:
            if httpx.get(f"{url}/livez", timeout=2, trust_env=False).is_success:
                return True
        except httpx.HTTPError:
            pass
        stop.wait(0.25)
    return False
