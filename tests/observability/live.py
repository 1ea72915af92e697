"""The real thing for this folder's tests: `matinee demo` with its probe, and Prometheus, scraping as the chart's PodMonitors say.

The server's limits are so low that some requests fail, are refused or come degraded: a dashboard has to show that too. Before the version
that it serves there are broken ones, of an export that lost a column and of an ingest whose vectors mean nothing: going to one of them
makes searches worse, and `index rollback` better again.
"""

import asyncio
import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from matinee.index.build import Build
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from observability.prometheus import Prometheus, Series, running
from tests.e2e import conftest as e2e
from tests.helm.chart import ROOT, Object, one, template
from tests.observability.pod_monitors import scrape_config
from tests.waiting import HANG_S, until

CHART_VALUES = {
    "metrics": {"podMonitor": True},
    "dashboards": {"enabled": True},
    "probe": {"enabled": True},
    # Seconds in place of hours: a test can't wait a day for what is usual.
    "alerts": {
        "enabled": True,
        "runbooks": "https://wiki.example/runbooks",
        "interval": "2s",
        "recall": {"window": "10s", "baseline": "5m", "for": "0s"},
    },
}
SETTINGS = {
    # So that something is lost: these few films would be scanned, and a graph of them at full width finds nearly all.
    "MATINEE_INDEX__GRAPH_FROM": "10",
    "MATINEE_INDEX__EF": "10",
    # Faster than Ray's 10 s, and not so fast that a gauge, said anew each 5 s, is dropped as stale after two intervals.
    "RAY_metrics_report_interval_ms": "4000",
    "MATINEE_ENHANCER__DEADLINE_S": "0.4",
    "MATINEE_ENHANCER__MAX_NEW_TOKENS": "16",
    "MATINEE_SERVING__DEPLOYMENT__MAX_ONGOING_REQUESTS": "8",
    "MATINEE_SERVING__DEPLOYMENT__TARGET_ONGOING_REQUESTS": "8",
    # A round has to fit into it on a machine at a quarter of its speed, and one that never pauses would take a core.
    "MATINEE_PROBE__INTERVAL_S": "12",
    "MATINEE_PROBE__DEADLINE_S": "3",
    "MATINEE_PROBE__MAX_QUERIES": "5",
    "MATINEE_PROBE__METRICS_PORT": "0",
    "MATINEE_INDEX__KEEP_VERSIONS": "3",
    "MATINEE_EVENTS__FLUSH_S": "1",
    "MATINEE_EVENTS__FLUSH_EVENTS": "20",
    "MATINEE_EVENTS__MAX_WAITING": "50",
}
ANNOUNCED = ("server.json", "probe.json")
LOST_COLUMN, RANDOM_VECTORS = "lost column", "random vectors"


@dataclass
class Stack:
    """What runs, and the chart's objects that say how it is watched."""

    placement: str
    server: Any
    prometheus: Prometheus
    objects: list[Object]
    folder: Path
    since: float
    broken: dict[str, str]
    """What is wrong with a version -> its name."""

    def series(self, expression: str) -> list[Series]:
        """The series of an expression over the last minute that have a value."""
        found = self.prometheus.over(expression, 60, 3)
        return [series for series in found if any(not math.isnan(value) for _, value in series.points)]

    def firing(self, alert: str) -> list[dict[str, Any]]:
        return [a for a in self.prometheus.alerts() if a["labels"]["alertname"] == alert and a["state"] == "firing"]

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """The answer to a request that is sent again while there is no place for it."""

        def answer() -> httpx.Response | None:
            found = self.server.client.request(method, self.server.url + path, **given)
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        return until(answer, f"{method} {path} is let in").raise_for_status().json()

    def crowds(self) -> AbstractContextManager[None]:
        """Now and then more requests than are admitted, until the end of the `with`."""
        return _load(self.server.url, _crowds)

    @contextmanager
    def gone_wrong(self, how: str) -> Iterator[None]:
        """The server answers from a broken version until the end of the `with`."""
        version = lambda: (self.ask("GET", "/v1/info")["index"] or {}).get("version")  # noqa: E731
        good = until(version, "the index is known")
        index = demo_index(self.server.home)
        asyncio.run(index.switch(self.broken[how]))
        until(lambda: version() == self.broken[how], "the server follows")
        yield
        done = self.server.cli("index", "rollback", "--json")
        assert done.returncode == 0, done.stderr
        until(lambda: version() == good, "the server goes back")


@contextmanager
def stack(placement: str, folder: Path, home: Path, films: Sequence[Item], embedder: Embedder, needed: Sequence[str]) -> Iterator[Stack]:
    """Everything, with load on it, until the end of the `with`; and the broken versions that are `needed`."""
    objects = template(given=CHART_VALUES)
    e2e.new_home(home)
    makers = {
        LOST_COLUMN: lambda: _build(home, [film.model_copy(update={"overview": ""}) for film in films], embedder),
        RANDOM_VECTORS: lambda: _build(home, films, _AtRandom(embedder)),
    }
    broken = {how: makers[how]() for how in needed}
    with ExitStack() as exits:
        server = exits.enter_context(_demo(placement, home, folder))
        own, probe = (str(json.loads((home / file).read_text(encoding="utf-8"))["metrics"]).split("/")[2] for file in ANNOUNCED)
        config = prometheus_config(objects, folder, own, probe)
        prometheus = exits.enter_context(running(config, folder / "prometheus", e2e.free_port()))
        exits.enter_context(_load(server.url, _stream))
        yield Stack(placement, server, prometheus, objects, folder, time.time(), broken)


def demo_index(home: Path) -> IndexStore:
    """The versions of the demo's catalogue."""
    return open_store(load_settings({"catalogue": "demo"}, environ=e2e.environment(home, **SETTINGS)))


class _AtRandom:
    """It gives texts the vectors of nothing."""

    def __init__(self, right: Embedder) -> None:
        self._right = right
        self._random = np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        vectors = self._random.normal(size=(len(texts), self._right.dimension)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _build(home: Path, films: Sequence[Item], embedder: Any) -> str:
    """A version of the demo's catalogue, as an ingest makes it; here, where the encoder is loaded already."""

    async def build() -> str:
        store = demo_index(home)
        try:
            done = await Build(store, PointMaker(embedder, "raw"), "demo", "test").run(films)
            return done.manifest.version
        finally:
            await store.close()

    return asyncio.run(build())


def prometheus_config(objects: list[Object], folder: Path, own: str, probe: str) -> dict[str, Any]:
    """The chart's PodMonitors and PrometheusRule, as the operator would give them to Prometheus."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(one(objects, "PrometheusRule")["spec"]), encoding="utf-8")
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    probing = one(objects, "Deployment", "matinee-probe")["spec"]["template"]
    return {
        "global": {"evaluation_interval": "2s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            scrape_config(one(objects, "PodMonitor", "matinee"), head, "matinee-head", "ns", own),
            scrape_config(one(objects, "PodMonitor", "matinee-probe"), probing, "matinee-probe", "ns", probe),
        ],
    }


@contextmanager
def _demo(placement: str, home: Path, folder: Path) -> Iterator[Any]:
    """What `make demo` starts: it ingests the bundled films, serves them and probes them, until it is told to stop."""
    log = folder / "demo.log"
    command = [str(Path(sys.executable).with_name("matinee")), "demo", "--port", "0", "--metrics"]
    env = e2e.environment(home, **SETTINGS, MATINEE_SERVING__PLACEMENT=placement, MATINEE_EVENTS__URI=str(folder / "events"))
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True)
    server = e2e.Server(home, process, log, metrics_url="")

    def announced() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-4000:]
        return all((home / file).exists() for file in ANNOUNCED)

    try:
        until(announced, lambda: f"server and probe start: {log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
        server.url = json.loads((home / "server.json").read_text(encoding="utf-8"))["url"]
        yield server
    finally:
        e2e._stop(server)
    assert not (home / "probe.json").exists()


@contextmanager
def _load(url: str, ask: Callable[[str, threading.Event], None]) -> Iterator[None]:
    """Requests until the end of the `with`."""
    stop = threading.Event()
    thread = threading.Thread(target=ask, args=(url, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _stream(url: str, stop: threading.Event) -> None:
    """A steady stream of everything."""
    n = 0
    with httpx.Client(base_url=url, timeout=HANG_S) as client:
        while not stop.wait(1):
            n += 1
            with contextlib.suppress(httpx.HTTPError):
                _one_of_each(client, n)


def _one_of_each(client: httpx.Client, n: int) -> None:
    answer = client.post("/v1/search", json={"text": f"a heist inside dreams, number {n % 50}", "k": 5})
    client.post("/v1/recommend", json={"likes": ["Inception"], "k": 5})
    client.get("/v1/items/inception-2010/similar?k=5")
    if n % 10 == 1:
        client.post("/v1/describe", json={"id": "the-matrix-1999"})
        client.post("/v1/describe", json={"item": {"title": "A film of which nothing is known"}})
        client.post("/v1/search", json={"text": f"robots {n}", "expand": True})
        client.post("/v1/search", json={"nonsense": True})
    if n % 10 == 2 and answer.is_success:
        clicked = [answer.json()["items"][0]["id"]]
        client.post("/v1/feedback", json={"token": answer.json()["feedback_token"], "clicked": clicked})


def _crowds(url: str, stop: threading.Event) -> None:
    """More at once than the gateway admits, now and then."""

    def search(n: int) -> None:
        with contextlib.suppress(httpx.HTTPError):
            client.post("/v1/search", json={"text": f"a crowd {n}"})

    # One client: to make one takes as much time as to answer it.
    with httpx.Client(base_url=url, timeout=HANG_S) as client, ThreadPoolExecutor(24) as crowd:
        while True:
            list(crowd.map(search, range(24)))
            if stop.wait(20):
                return
