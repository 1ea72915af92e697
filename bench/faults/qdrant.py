"""Faults of a Qdrant server, played by `bench.faults.fake_qdrant` in its place."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import httpx

from bench.faults.case import BUSY, Case, Sandbox
from bench.local_server import BenchError, free_port
from matinee import demo

FEW = 60


class Qdrant(Case):
    """The index lies in `bench.faults.fake_qdrant`, reached over HTTP as a server is."""

    settings: ClassVar[dict[str, str]] = {"MATINEE_INDEX__ENGINE": "qdrant", "MATINEE_INDEX__TIMEOUT_S": "2"}
    allowed = BUSY | {504}

    def prepare(self, sandbox: Sandbox) -> None:
        port = free_port()
        self._process = subprocess.Popen([sys.executable, "-m", "bench.faults.fake_qdrant", "--port", str(port)], stderr=subprocess.DEVNULL)
        sandbox.exits.callback(self._process.wait)
        sandbox.exits.callback(self._process.kill)
        self._url = f"http://127.0.0.1:{port}"
        sandbox.environment["MATINEE_INDEX__URL"] = self._url
        start = time.monotonic()
        while time.monotonic() - start < 60:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(self._url, trust_env=False)
                break
            time.sleep(0.1)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
        environment = kept | {"MATINEE_HOME": str(sandbox.home), "MATINEE_CATALOGUE": "demo"} | sandbox.environment
        # In memory, Python itself scans all of them for each search.
        few = sandbox.home / "few.jsonl"
        few.write_text("\n".join(demo.FILMS.read_text(encoding="utf-8").splitlines()[:FEW]), encoding="utf-8")
        command = [sys.executable, "-m", "train.ingest", str(few), "--kind", "film", "--rejects", str(sandbox.home)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"the films were not ingested:\n{done.stderr[-2000:]}")


class HungQdrant(Qdrant):
    name = "hung-qdrant"
    breaks = "Qdrant takes requests and does not answer (a fake server)"

    def start(self, sandbox: Sandbox) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def end(self, sandbox: Sandbox) -> None:
        self._process.send_signal(signal.SIGCONT)


class SlowQdrant(Qdrant):
    name = "slow-qdrant"
    breaks = "Qdrant answers every call half a second late (a fake server)"
    # As docs/reliability.md says where Qdrant is known to be slow.
    settings: ClassVar[dict[str, str]] = Qdrant.settings | {"MATINEE_SERVING__MAX_WAIT_S": "5"}
    allowed = frozenset()

    def start(self, sandbox: Sandbox) -> None:
        httpx.put(f"{self._url}/delay", params={"seconds": 0.5}, trust_env=False).raise_for_status()

    def end(self, sandbox: Sandbox) -> None:
        httpx.put(f"{self._url}/delay", params={"seconds": 0}, timeout=60, trust_env=False).raise_for_status()
