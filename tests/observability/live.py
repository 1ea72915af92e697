"""The real thing for this folder's tests: the served demo films, the probe, and Prometheus, scraping as the chart's PodMonitors say.

The server's limits are so low that some requests fail, are refused or come degraded: a dashboard has to show that too.
"""

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from chart import ROOT, Object, one, template
from pod_monitors import scrape_config

from matinee import demo
from observability.prometheus import Prometheus, Series, running

_spec = importlib.util.spec_from_file_location("e2e_tools", ROOT / "tests" / "e2e" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
e2e: Any = importlib.util.module_from_spec(_spec)
sys.modules["e2e_tools"] = e2e
_spec.loader.exec_module(e2e)

CHART_VALUES = {
    "metrics": {"podMonitor": True},
    "dashboards": {"enabled": True},
    "probe": {"enabled": True},
    # Seconds in place of hours: a test can't wait a day for what is usual.
    "alerts": {"enabled": True, "interval": "1s", "recall": {"window": "10s", "baseline": "5m", "for": "0s"}},
}
SERVER = {
    # Faster than Ray's 10 s, and not so fast that a gauge, said anew each 5 s, is dropped as stale after two intervals.
    "RAY_metrics_report_interval_ms": "4000",
    "MATINEE_ENHANCER__DEADLINE_S": "0.4",
    "MATINEE_ENHANCER__MAX_NEW_TOKENS": "16",
    "MATINEE_SERVING__DEPLOYMENT__MAX_ONGOING_REQUESTS": "8",
    "MATINEE_SERVING__DEPLOYMENT__TARGET_ONGOING_REQUESTS": "8",
}
PROBE = {"MATINEE_PROBE__INTERVAL_S": "10", "MATINEE_PROBE__MAX_QUERIES": "15"}


@dataclass
class Stack:
    """What runs, and the chart's objects that say how it is watched."""

    server: Any
    prometheus: Prometheus
    objects: list[Object]
    folder: Path
    since: float

    def series(self, expression: str) -> list[Series]:
        """The series of an expression over the last minute that have a value."""
        found = self.prometheus.over(expression, 60, 3)
        return [series for series in found if any(not math.isnan(value) for _, value in series.points)]

    def firing(self, alert: str) -> list[dict[str, Any]]:
        return [a for a in self.prometheus.alerts() if a["labels"]["alertname"] == alert and a["state"] == "firing"]

    def ingest(self, *arguments: str) -> None:
        done = e2e.run(self.server.home, "train.ingest", *arguments)
        assert done.returncode == 0, done.stderr


@contextmanager
def stack(folder: Path, home: Path) -> Iterator[Stack]:
    """Everything, with load on it, until the end of the `with`."""
    objects = template(given=CHART_VALUES)
    e2e.new_home(home)
    done = e2e.run(home, "train.ingest", "--demo")
    assert done.returncode == 0, done.stderr
    events = {"MATINEE_EVENTS__URI": str(folder / "events"), "MATINEE_EVENTS__FLUSH_S": "1"}
    server = e2e._start(home, folder, **SERVER, **events)
    with ExitStack() as exits:
        exits.callback(e2e._stop, server)
        probe_port = e2e.free_port()
        exits.enter_context(_probe(home, folder, probe_port))
        config = prometheus_config(objects, folder, server.metrics_url.split("/")[2], f"127.0.0.1:{probe_port}")
        prometheus = exits.enter_context(running(config, folder / "prometheus", e2e.free_port()))
        exits.enter_context(_load(server.url))
        yield Stack(server, prometheus, objects, folder, time.time())


def prometheus_config(objects: list[Object], folder: Path, ray: str, probe: str) -> dict[str, Any]:
    """The chart's PodMonitors and PrometheusRule, as the operator would give them to Prometheus."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(one(objects, "PrometheusRule")["spec"]), encoding="utf-8")
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    probing = one(objects, "Deployment", "matinee-probe")["spec"]["template"]
    return {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            scrape_config(one(objects, "PodMonitor", "matinee"), head, "matinee-head", "ns", ray),
            scrape_config(one(objects, "PodMonitor", "matinee-probe"), probing, "matinee-probe", "ns", probe),
        ],
    }


@contextmanager
def _probe(home: Path, folder: Path, port: int) -> Iterator[None]:
    env = e2e.environment(home, **PROBE)
    with (folder / "probe.log").open("wb") as log:
        command = [sys.executable, "-m", "serve.probe", "--metrics-port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0, (folder / "probe.log").read_text(encoding="utf-8")


@contextmanager
def _load(url: str) -> Iterator[None]:
    """A steady stream of everything, and now and then more at once than the door lets in."""
    stop = threading.Event()
    threads = [threading.Thread(target=_ask, args=(url, stop)), threading.Thread(target=_crowd, args=(url, stop))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask(url: str, stop: threading.Event) -> None:
    n = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.wait(0.1):
            n += 1
            with contextlib.suppress(httpx.HTTPError):
                _one_of_each(client, n)


def _one_of_each(client: httpx.Client, n: int) -> None:
    answer = client.post("/v1/search", json={"text": f"a heist inside dreams, number {n % 50}", "k": 5})
    client.post("/v1/recommend", json={"likes": ["Inception"], "k": 5})
    client.get("/v1/items/inception-2010/similar?k=5")
    if n % 10 == 1:
        client.post("/v1/describe", json={"id": "the-matrix-1999"})
        client.post("/v1/search", json={"text": f"robots {n}", "expand": True})
        client.post("/v1/search", json={"nonsense": True})
    if n % 10 == 2 and answer.is_success:
        clicked = [answer.json()["items"][0]["id"]]
        client.post("/v1/feedback", json={"request_id": answer.json()["request_id"], "clicked": clicked})


def _crowd(url: str, stop: threading.Event) -> None:
    def search(n: int) -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{url}/v1/search", json={"text": f"a crowd {n}"}, timeout=60)

    with ThreadPoolExecutor(24) as crowd:
        while not stop.wait(5):
            list(crowd.map(search, range(24)))


def without_overviews(folder: Path) -> Path:
    """The demo films, as an export would be that lost a column."""
    path = folder / "damaged.jsonl"
    films = [json.loads(line) for line in demo.FILMS.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(film | {"overview": ""}) + "\n" for film in films), encoding="utf-8")
    return path
