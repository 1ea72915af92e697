"""What goes wrong in production, made to happen on the stack that runs: each lasts as long as its `with`."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil

from tests.helm.chart import ROOT
from tests.observability.live import Stack, e2e
from tests.waiting import HANG_S, until

_RECONFIGURE = """
import sys
import ray
from ray import serve
ray.init(address=sys.argv[1], logging_level="error")
serve.get_deployment_handle("Enhancer", "matinee").reconfigure.remote(dict([sys.argv[2:]] if sys.argv[2:] else [])).result(timeout_s=60)
"""


@dataclass(frozen=True)
class Fault:
    """`metric` counts it; `happens` is it."""

    metric: str
    happens: Callable[[Stack], AbstractContextManager[None]]
    alert: str = ""


@contextlib.contextmanager
def unreadable_index(live: Stack) -> Iterator[None]:
    """The file that names the current version is damaged."""
    [mark] = live.server.home.rglob("CURRENT")
    named = mark.read_text(encoding="utf-8")
    mark.write_text("{", encoding="utf-8")
    try:
        until(lambda: _troubles(live, "index"), "/v1/info says so")
        yield
        assert live.ask("POST", "/v1/search", json={"text": "a heist"})["items"], "the version that is open goes on answering"
    finally:
        mark.write_text(named, encoding="utf-8")
    until(lambda: not _troubles(live, "index"), "the Retriever reads its index again")


@contextlib.contextmanager
def absent_adapter(live: Stack) -> Iterator[None]:
    """The enhancer is told to load an adapter that is not there, as Serve tells it when a config's `user_config` changes."""
    _reconfigure(live, "adapter", str(live.folder / "no-such-adapter"))
    until(lambda: "no-such-adapter" in str(_troubles(live, "enhancer")), "the update fails, and /v1/info says so")
    yield
    _reconfigure(live)
    until(lambda: not _troubles(live, "enhancer"), "the old settings are what is wanted again")


@contextlib.contextmanager
def full_event_log(live: Stack) -> Iterator[None]:
    """Events can't be written, since a file is where their folder belongs: they wait until there is no more room."""
    events = live.folder / "events"
    events.rename(live.folder / "events.before")
    events.touch()
    try:
        yield
    finally:
        events.unlink()
    until(lambda: any(events.rglob("*.jsonl")), "events are written again")


@contextlib.contextmanager
def hanging_retriever(live: Stack) -> Iterator[None]:
    """The Retriever's process stands still, so that the probe waits for longer than it may."""
    replicas = [p for p in _family(live) if p.name().startswith("ray::ServeRepl") and "Retriever" in "".join(p.cmdline())]
    # The demo's own process only waits for the server's.
    [process] = replicas or [psutil.Process(json.loads((live.server.home / "server.json").read_text(encoding="utf-8"))["pid"])]
    process.suspend()
    try:
        yield
    finally:
        process.resume()
    since = time.time()
    until(lambda: live.prometheus.instant(f"matinee_probe_last_success_timestamp_seconds > {since}"), "the probe measures again")


def _reconfigure(live: Stack, *setting: str) -> None:
    words = {word for process in _family(live) for word in process.cmdline()}
    [address] = {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    command = [sys.executable, "-c", _RECONFIGURE, address, *setting]
    [token] = {path for process in _family(live) if (path := process.environ().get("RAY_AUTH_TOKEN_PATH"))}
    env = e2e.environment(live.server.home, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=token, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr


def _family(live: Stack) -> list[psutil.Process]:
    return [p for p in psutil.Process(live.server.process.pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def _troubles(live: Stack, part: str) -> list[str]:
    return [trouble for trouble in live.ask("GET", "/v1/info")["degraded"] if trouble.startswith(part)]


FAULTS = (
    Fault("ray_matinee_index_errors_total", unreadable_index),
    Fault("ray_matinee_events_dropped_total", full_event_log),
    Fault("matinee_probe_failures_total", hanging_retriever),
)
MODEL_SWAP = Fault("ray_matinee_model_swap_failures_total", absent_adapter, alert="MatineeModelSwapFailed")
"""On Ray Serve only."""
