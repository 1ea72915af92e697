"""Requests at a steady pace from a thread, each timed and checked: what the tests of updates put on a running graph."""

import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.helm.stack import Stack
from tests.waiting import until

QUERIES: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "dense": ("POST", "/v1/search", {"text": "a heist inside dreams", "mode": "dense", "k": 5}),
    # No two films have the same BM25 score for it: an engine orders equal ones as it likes, and ranks are what hybrid counts.
    "hybrid": ("POST", "/v1/search", {"text": "a count from transylvania drinks blood in london", "mode": "hybrid", "k": 5}),
    "similar": ("GET", "/v1/items/{id}/similar?k=5", None),
    "taste": ("POST", "/v1/recommend", {"likes": ["{id}"], "text": "in space", "k": 5}),
}
_SAME = 2e-3


@dataclass
class Load:
    """Counts what is no 200, and each answer that is not the one from before the update: mixed versions give other titles or scores."""

    stack: Stack
    every_s: float = 0.1
    describes: bool = False
    failures: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    editions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._phase = "before"
        self._latencies: dict[str, list[float]] = defaultdict(list)
        self._count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        with self.stack.client() as client:
            self._id = client.get("/v1/items", params={"limit": 1}).json()["items"][0]["id"]
            self._wanted = {name: self._ranking(self._ask(client, name).json()) for name in QUERIES}

    def __enter__(self) -> "Load":
        self._thread.start()
        self.more(8)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def phase(self, name: str) -> None:
        """From now on, latencies are counted under `name`."""
        self._phase = name

    def more(self, requests: int) -> None:
        """Wait until so many further requests were answered."""
        wanted = self._count + requests
        until(lambda: self._count >= wanted, "the load goes on")

    def _run(self) -> None:
        with self.stack.client() as client:
            while not self._stop.wait(self.every_s):
                names = [*QUERIES, "describe"] if self.describes else list(QUERIES)
                name, phase, start = names[self._count % len(names)], self._phase, time.perf_counter()
                try:
                    self._check(name, self._ask(client, name))
                except httpx.HTTPError as error:
                    self.failures.append(f"{name}: {error!r}")
                self._latencies[phase].append(time.perf_counter() - start)
                self._count += 1

    def _ask(self, client: httpx.Client, name: str) -> httpx.Response:
        if name == "describe":
            # Never the same item: gateways remember descriptions.
            item = {"kind": "film", "title": f"The {self._count}th Lamp", "year": 2031, "overview": "A lamp is lit and nobody comes."}
            return client.post("/v1/describe", json={"item": item})
        method, path, body = QUERIES[name]
        body = body and {key: [self._id] if key == "likes" else value for key, value in body.items()}
        return client.request(method, path.format(id=self._id), json=body)

    def _check(self, name: str, answer: httpx.Response) -> None:
        if not answer.is_success:
            self.failures.append(f"{name}: {answer.status_code} {answer.text[:300]}")
            return
        body = answer.json()
        if body.get("degraded"):
            self.failures.append(f"{name}: degraded {body['degraded']}")
        if name == "describe":
            return
        editions = {entry["item"]["extra"]["edition"][0] for entry in body["items"]}
        self.editions |= editions
        found = self._ranking(body)
        same = [id for id, _ in found] == [id for id, _ in self._wanted[name]]
        near = all(abs(a - b) < _SAME for (_, a), (_, b) in zip(found, self._wanted[name], strict=False))
        if len(editions) != 1 or not same or not near:
            differ = [(a[0][:8], a[1], b[0][:8], b[1]) for a, b in zip(found, self._wanted[name], strict=False) if a != b]
            self.mixed.append(f"{name} of {sorted(editions)}: {differ}")

    @staticmethod
    def _ranking(body: dict[str, Any]) -> list[tuple[str, float]]:
        return [(entry["id"], entry["score"]) for entry in body["items"]]

    def report(self) -> None:
        """Print a table: requests and latency of each phase."""
        rows = ["| phase | requests | p50 ms | p99 ms | max ms |", "| --- | --- | --- | --- | --- |"]
        for phase, latencies in self._latencies.items():
            ordered = sorted(1000 * seconds for seconds in latencies)
            p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
            rows.append(f"| {phase} | {len(ordered)} | {p50:.0f} | {p99:.0f} | {ordered[-1]:.0f} |")
        rows += [f"{self._count} requests, {len(self.failures)} failed, {len(self.mixed)} mixed"]
        kinds = [*self.failures[:3], *self.mixed[:3]]
        sys.stdout.write("\n" + "\n".join(rows + kinds) + "\n")
