"""More than the server can do, and a number of replicas that follows the load."""

import contextlib
import threading
import time
from typing import Any, ClassVar

import numpy as np
import psutil  # type: ignore[import-untyped]

from bench.faults.case import BUSY, Case, Limit, Sandbox
from bench.load import NO_ANSWER, NO_CONNECTION
from bench.local_server import BenchError
from bench.serve import load
from bench.traffic import TrafficLine, searches, traffic, write_lines

TIMES = 10
SATURATED_S = 10.0
MORE_MEMORY = 0.1
MEMORY_EVERY_S = 3.0
SCALE_S = 120.0


class Overload(Case):
    """Ten times the requests that the server can answer. The steady requests of before are among them."""

    name = "overload"
    breaks = f"{TIMES} times the requests of saturation"
    seconds = 60.0
    settings: ClassVar[dict[str, str]] = {"MATINEE_ENHANCER__ENABLED": "0", "MATINEE_EMBEDDER__CACHE_ENTRIES": "0"}

    def lines(self, url: str) -> list[TrafficLine]:
        return searches(url)

    def measure(self, sandbox: Sandbox) -> None:
        """As many clients as there are places, or as are let in: nothing is refused, and nothing could be faster."""
        clients = 2 * sandbox.server.settings.serving.deployment.max_ongoing_requests
        requests = write_lines(self.lines(sandbox.server.url), sandbox.home / "saturation.jsonl")
        refused = True
        while refused and clients > 1:
            clients //= 2
            load(sandbox.server.url, requests, clients=clients, seconds=3)
            self._saturated: dict[str, Any] = load(sandbox.server.url, requests, clients=clients, seconds=SATURATED_S)
            refused = set(self._saturated["statuses"]) != {"200"}
        self._clients = clients
        self._memory = Memory(sandbox)
        self._exits = contextlib.ExitStack()

    def start(self, sandbox: Sandbox) -> None:
        rate = TIMES * self._saturated["rps"]
        lines = self.lines(sandbox.server.url)
        self._load = self._exits.enter_context(
            traffic(sandbox.server.url, lines, sandbox.home, "overload", rate=rate, seconds=sandbox.seconds)
        )

    def end(self, sandbox: Sandbox) -> None:
        self._load.end()

    def check(self, sandbox: Sandbox) -> list[str]:
        self._exits.close()
        memory = self._memory.stop()
        answers = self._load.answers()
        good = [answer.ms for answer in answers if answer.status == 200]
        others = {answer.status for answer in answers} - {200, *BUSY}
        silent = sum(not answer.retry_after for answer in answers if answer.status in BUSY)
        p99 = float(np.percentile(good, 99)) if good else float("inf")
        seconds = max(answer.due_s for answer in answers) - min(answer.due_s for answer in answers)
        sandbox.notes += [
            f"saturated by {self._clients} clients: {self._saturated['rps']:.0f} requests/s, p99 {self._saturated['p99_ms']:.0f} ms",
            f"sent {len(answers) / seconds:.0f}/s, answered {len(good) / seconds:.0f}/s, p99 {p99:.0f} ms",
            f"memory {memory[0] / 1e6:.0f} MB before, {max(memory) / 1e6:.0f} MB at most, {memory[-1] / 1e6:.0f} MB after",
        ]
        problems = [f"statuses {sorted(others)}"] if others else []
        problems += [f"{silent} refusals without Retry-After"] if silent else []
        problems += Limit("p99 of what was let in, times the saturated one:", p99 / self._saturated["p99_ms"], 2.0).problem()
        problems += Limit("memory, times that before:", max(memory) / memory[0], 1 + MORE_MEMORY).problem("{:.2f}".format)
        return problems


class Memory:
    """PSS of all the server's processes in bytes, before the load and every few seconds until `stop`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._server = sandbox.server
        self._samples = [self._now()]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        sandbox.exits.callback(self._stopped.set)

    def stop(self) -> list[float]:
        """All samples; the last one is of now."""
        self._stopped.set()
        self._thread.join()
        return [*self._samples, self._now()]

    def _watch(self) -> None:
        while not self._stopped.wait(MEMORY_EVERY_S):
            self._samples.append(self._now())

    def _now(self) -> float:
        total = 0.0
        for _, process in self._server.processes():
            # One that has just ended has none.
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total


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

    def start(self, sandbox: Sandbox) -> None:
        self._exits = contextlib.ExitStack()
        # Twice what one may have under way before the second one is started.
        rate = 40.0
        lines = searches(sandbox.server.url)
        self._load = self._exits.enter_context(traffic(sandbox.server.url, lines, sandbox.home, "scale", rate=rate))
        sandbox.notes.append(f"two replicas after {_wait_replicas(sandbox, 2):.1f} s")

    def end(self, sandbox: Sandbox) -> None:
        self._load.end()
        self._exits.close()
        sandbox.notes.append(f"one replica {_wait_replicas(sandbox, 1):.1f} s after the load")

    def check(self, sandbox: Sandbox) -> list[str]:
        """While the second replica loads its model, the first one may be refused its cores, and refuse requests."""
        answers = self._load.answers()
        refused, failed = (
            sum(answer.status in statuses for answer in answers) for statuses in (BUSY, {NO_CONNECTION, NO_ANSWER, 500, 504})
        )
        sandbox.notes.append(f"{refused} of {len(answers)} requests of the load were refused")
        return [f"{failed} of {len(answers)} requests of the load failed"] if failed else []


def _wait_replicas(sandbox: Sandbox, count: int) -> float:
    """Seconds until gateway and embedder have `count` replicas each."""
    start = time.monotonic()
    while time.monotonic() - start < SCALE_S:
        parts = [part for part, _ in sandbox.server.processes()]
        if all(parts.count(part) == count for part in ("gateway", "embedder")):
            return time.monotonic() - start
        time.sleep(0.2)
    raise BenchError(f"not {count} replicas each within {SCALE_S:.0f} s: {parts}")
