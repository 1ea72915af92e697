"""A server of its own for benchmarks that hurt it: started, killed, started again on the same port, with its processes by their part.

Its home holds an index of the bundled films, or a copy of another home's. Every process that has this home in its environment counts as
the server's, also one whose parent was killed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from matinee.client import calls
from matinee.client.calls import EmbedderReport
from matinee.client.http import Client, ServerError
from matinee.client.server_file import read_server_file
from matinee.errors import MatineeError
from matinee.settings.load import load_settings

START_S = 600.0
PARTS = {
    "ray::ServeReplica:matinee:Gateway": "gateway",
    "ray::ServeReplica:matinee:Embedder": "embedder",
    "ray::ServeReplica:matinee:Retriever": "retriever",
    "ray::ServeReplica:matinee:Enhancer": "enhancer",
    "ray::ServeController": "controller",
    "ray::ProxyActor": "proxy",
    "ray::IDLE": "idle worker",
    "gcs_server": "gcs",
    "raylet": "raylet",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler",
    "dashboard.py": "dashboard",
    "runtime_env": "runtime env agent",
    "dashboard/agent.py": "dashboard agent",
}
"""What a process of Ray's has in its command line -> its part."""


class BenchError(MatineeError):
    """The benchmark can't go on."""


class LocalServer:
    """`python -m MODULE` with `environment` on top of this process's, but for settings of Matinee and Ray that this one has."""

    def __init__(self, home: Path, environment: dict[str, str], module: str = "serve") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MATINEE_", "RAY_"))}
        self.home = home
        self.environment = kept | {"MATINEE_HOME": str(home), "MATINEE_CATALOGUE": "demo"} | environment
        self.settings = load_settings(environ=self.environment)
        self.port = free_port()
        self.metrics_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "server.log"
        self._module = module
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return at once."""
        command = [sys.executable, "-m", self._module, "--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)

    def wait_ready(self) -> None:
        """Return once a text search is answered. Raises `BenchError` where the server ends, or takes longer."""
        assert self.process is not None
        end = time.monotonic() + START_S
        while (named := read_server_file(self.settings.server_file)) is None or named["pid"] != self.process.pid or not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"the server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def wait_embedder(self) -> EmbedderReport:
        """What the embedder says of itself, once it is loaded: also on a server without an index."""
        assert self.process is not None
        client, end = Client(self.url, timeout_s=20, direct=True), time.monotonic() + START_S
        while True:
            with contextlib.suppress(ServerError):
                report = client.send(calls.info())["embedder"]
                if "fingerprint" in report:
                    return report
            if self.process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"the embedder was not loaded:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether a text search is answered now, by every part that it needs."""
        with contextlib.suppress(ServerError):
            return not Client(self.url, timeout_s=20, direct=True).send(calls.search({"text": "a heist inside dreams"}))["degraded"]
        return False

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """The living processes of this home, with their parts; the server's own is `server`."""
        by_part = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("MATINEE_HOME") == str(self.home):
                    part = self._part(process)
                    if part is not None and process.status() != psutil.STATUS_ZOMBIE:
                        by_part.append((part, process))
        return sorted(by_part, key=lambda pair: (pair[0], pair[1].pid))

    def _part(self, process: psutil.Process) -> str | None:
        if self.process is not None and process.pid == self.process.pid:
            return "server"
        line = " ".join(process.cmdline())
        return next((part for mark, part in PARTS.items() if mark in line), None if "bench." in line else "other")

    def part(self, name: str) -> psutil.Process:
        """The oldest process of a part. Raises `BenchError` where there is none."""
        matches = [process for part, process in self.processes() if part == name]
        if not matches:
            raise BenchError(f"the server has no process {name}: {[part for part, _ in self.processes()]}")
        return min(matches, key=psutil.Process.create_time)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is left of it after its drain."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.settings.serving.drain_s + 30)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for all of its processes."""
        family = [process for _, process in self.processes()]
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        if self.process is not None:
            self.process.wait(30)


@contextmanager
def temporary_home(source: Path | None) -> Iterator[Path]:
    """A home that may be broken: with a copy of the index of `source`, or with one of the bundled films. Removed at the end."""
    with tempfile.TemporaryDirectory(prefix="matinee-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        share_models(home, source)
        if source is None:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
            command = [sys.executable, "-m", "train.ingest", "--demo"]
            done = subprocess.run(command, env=environment | {"MATINEE_HOME": folder}, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(f"the bundled films were not ingested:\n{done.stderr}")
        else:
            copy_index(source, home)
        yield home


def share_models(home: Path, source: Path | None = None) -> None:
    """Let a home use the models of `source`, by default those that this user has."""
    models = (source or Path("~/.matinee").expanduser()) / "models"
    if models.exists() and not (home / "models").exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "models").symlink_to(models.resolve())


def copy_index(source: Path, home: Path) -> None:
    """The one catalogue of `source`, under the name `demo`."""
    catalogues = [mark.parent for mark in (source / "index").glob("*/CURRENT")]
    if len(catalogues) != 1:
        raise SystemExit(f"{source}: give a home with the index of one catalogue, it has {len(catalogues)}")
    (home / "index").mkdir()
    copy_sparsely(catalogues[0], home / "index" / "demo")


def copy_sparsely(folder: Path, to: Path) -> None:
    """A copy of a folder of the embedded engine: most of its files are holes."""
    subprocess.run(["cp", "--recursive", "--sparse=always", f"{folder}/.", str(to)], check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
