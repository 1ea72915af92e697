"""More than the server can do, and a number of replicas that follows the load."""

import contextlib
import time
from typing import Any, ClassVar

import numpy as np

from bench.faults.case import BUSY, Case, Limit, Stand
from bench.load import NO_ANSWER, NO_CONNECTION
from bench.local_server import BenchError
from bench.serve import load
from bench.traffic import Line, searches, traffic, write_lines

TIMES = 10
SATURATED_S = 10.0
MORE_MEMORY = 0.1
SCALE_S = 120.0


class Overload(Case):
    """Ten times the requests that the server can answer. The steady requests of before are among them."""

    name = "overload"
    breaks = f"{TIMES} times the requests of saturation"
    seconds = 60.0
    settings: ClassVar[dict[str, str]] = {"MATINEE_ENHANCER__ENABLED": "0", "MATINEE_EMBEDDER__CACHE_ENTRIES": "0"}

    def lines(self, url: str) -> list[Line]:
        return searches(url)

    def measure(self, stand: Stand) -> None:
        """As many clients as there are places, or as are let in: nothing is refused, and nothing could be faster."""
        clients = 2 * stand.server.settings.serving.deployment.max_ongoing_requests
        requests = write_lines(self.lines(stand.server.url), stand.home / "saturation.jsonl")
        refused = True
        while refused and clients > 1:
            clients //= 2
            load(stand.server.url, requests, clients=clients, seconds=3)
            self._saturated: dict[str, Any] = load(stand.server.url, requests, clients=clients, seconds=SATURATED_S)
            refused = set(self._saturated["statuses"]) != {"200"}
        self._clients = clients
        self._memory = _memory(stand)
        self._exits = contextlib.ExitStack()

    def start(self, stand: Stand) -> None:
        rate = TIMES * self._saturated["rps"]
        lines = self.lines(stand.server.url)
        self._load = self._exits.enter_context(traffic(stand.server.url, lines, stand.home, "overload", rate=rate, seconds=stand.seconds))

    def end(self, stand: Stand) -> None:
        self._load.stop()
        self._exits.close()
        self._after = _memory(stand)

    def check(self, stand: Stand) -> list[str]:
        answers = self._load.answers()
        good = [answer.ms for answer in answers if answer.status == 200]
        others = {answer.status for answer in answers} - {200, *BUSY}
        silent = sum(not answer.retry_after for answer in answers if answer.status in BUSY)
        p99 = float(np.percentile(good, 99)) if good else float("inf")
        seconds = max(answer.due_s for answer in answers) - min(answer.due_s for answer in answers)
        stand.notes += [
            f"saturated by {self._clients} clients: {self._saturated['rps']:.0f} requests/s, p99 {self._saturated['p99_ms']:.0f} ms",
            f"sent {len(answers) / seconds:.0f}/s, answered {len(good) / seconds:.0f}/s, p99 {p99:.0f} ms",
            f"memory {self._memory / 1e6:.0f} MB before, {self._after / 1e6:.0f} MB after",
        ]
        problems = [f"statuses {sorted(others)}"] if others else []
        problems += [f"{silent} refusals without Retry-After"] if silent else []
        problems += Limit("p99 of what was let in, times the saturated one:", p99 / self._saturated["p99_ms"], 2.0).problem()
        problems += Limit("memory, times that before:", self._after / self._memory, 1 + MORE_MEMORY).problem("{:.2f}".format)
        return problems


def _memory(stand: Stand) -> float:
    return float(sum(process.memory_full_info().pss for _, process in stand.server.processes()))


class Scale(Case):
    """Load adds replicas of the gateway and the embedder, and takes them away when it ends."""

    name = "scale"
    breaks = "1 to 2 to 1 replicas of gateway and embedder, by load"
    placements = ("ray",)
    settings: ClassVar[dict[str, str]] = {
        "MATINEE_ENHANCER__ENABLED": "0",
        "MATINEE_EMBEDDER__CACHE_ENTRIES": "0",
        **{
            f"MATINEE_{part}__DEPLOYMENT__{name}": value
            for part in ("SERVING", "EMBEDDER")
            for name, value in {
                "MAX_REPLICAS": "2",
                "TARGET_ONGOING_REQUESTS": "2",
                "UPSCALE_DELAY_S": "2",
                "DOWNSCALE_DELAY_S": "5",
                "NUM_CPUS": "0.1",
            }.items()
        },
    }

    def start(self, stand: Stand) -> None:
        self._exits = contextlib.ExitStack()
        # Twice what one may have under way before the second one is started.
        rate = 40.0
        lines = searches(stand.server.url)
        self._load = self._exits.enter_context(traffic(stand.server.url, lines, stand.home, "scale", rate=rate))
        stand.notes.append(f"two replicas after {_wait_replicas(stand, 2):.1f} s")

    def end(self, stand: Stand) -> None:
        self._load.stop()
        self._exits.close()
        stand.notes.append(f"one replica {_wait_replicas(stand, 1):.1f} s after the load")

    def check(self, stand: Stand) -> list[str]:
        """While the second replica loads its model, the first one may be refused its cores, and refuse requests."""
        answers = self._load.answers()
        refused, failed = (
            sum(answer.status in statuses for answer in answers) for statuses in (BUSY, {NO_CONNECTION, NO_ANSWER, 500, 504})
        )
        stand.notes.append(f"{refused} of {len(answers)} requests of the load were refused")
        return [f"{failed} of {len(answers)} requests of the load failed"] if failed else []


def _wait_replicas(stand: Stand, count: int) -> float:
    """Seconds until gateway and embedder have `count` replicas each."""
    start = time.monotonic()
    while time.monotonic() - start < SCALE_S:
        parts = [part for part, _ in stand.server.processes()]
        if all(parts.count(part) == count for part in ("gateway", "embedder")):
            return time.monotonic() - start
        time.sleep(0.2)
    raise BenchError(f"not {count} replicas each within {SCALE_S:.0f} s: {parts}")
