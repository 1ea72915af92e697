"""The real thing, once for all tests of this folder: films ingested by the job, `python -m serve` as a process, everything over HTTP.

Models are taken from the user's own cache where they are, so that nothing is fetched or converted twice on one machine.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from matinee import demo
from tests.network import free_port
from tests.programs_environment import clean
from tests.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "MATINEE_CATALOGUE": "demo",
    # A busy machine is no failure here.
    "MATINEE_ENHANCER__DEADLINE_S": "1400",
    "MATINEE_SERVING__DEADLINE_S": "1500",
    "MATINEE_SERVING__DRAIN_S": "1500",
    # How well it writes is tested elsewhere.
    "MATINEE_ENHANCER__MAX_NEW_TOKENS": "24",
    "MATINEE_ENHANCER__RETRIES": "0",
    # Few enough that a test can fill them.
    "MATINEE_SERVING__DEPLOYMENT__MAX_ONGOING_REQUESTS": "8",
    "MATINEE_SERVING__DEPLOYMENT__TARGET_ONGOING_REQUESTS": "4",
}
NAMED = ("Inception", "The Matrix", "Metropolis")
"""Films that tests ask for."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with a home of its own and no other setting of Matinee."""
    return clean() | SETTINGS | {"MATINEE_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"} | more


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` to its end."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(home, **more), capture_output=True, text=True, timeout=HANG_S, check=False)


def ingest(home: Path) -> dict[str, Any]:
    """What the job reports of a third of the bundled films; `make demo` ingests them all, see tests/observability."""
    rows = [json.loads(line) for line in demo.FILMS.read_text(encoding="utf-8").splitlines()]
    films = home / "films.jsonl"
    films.write_text("".join(json.dumps(row) + "\n" for n, row in enumerate(rows) if n % 3 == 0 or row["title"] in NAMED), encoding="utf-8")
    done = run(home, "train.ingest", str(films), "--kind", "film", "--rejects", str(home), "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def new_home(folder: Path) -> Path:
    """A home whose models are the user's."""
    models = Path.home() / ".matinee" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(models)
    return folder


@dataclass
class Server:
    """A running `python -m serve`."""

    home: Path
    process: subprocess.Popen[bytes]
    log: Path
    metrics_url: str
    url: str = ""
    collector: Any = None
    info_at_start: dict[str, Any] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=HANG_S))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The `matinee` command of this environment."""
        command = [str(Path(sys.executable).with_name("matinee")), *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment(self.home), capture_output=True, text=True, timeout=HANG_S, check=False)

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._content(self.client.get(self.url + path, params=params))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._content(self.client.post(self.url + path, json=body))

    def put(self, *items: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self._content(self.client.put(f"{self.url}/v1/items", json={"items": items}))["items"])

    def delete(self, id: str) -> None:
        self._content(self.client.delete(f"{self.url}/v1/items/{id}"))

    def status(self, path: str) -> int:
        return self.client.get(self.url + path).status_code

    def version(self) -> str:
        return str(self.get("/v1/info")["index"]["version"])

    @staticmethod
    def _content(response: httpx.Response) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        return dict(response.json())


class Load:
    """Queries from a thread, one after the other, from `with` to its end; `failures` holds every answer that is no 200.

    With a pause after each: whatever happens beside them needs the CPU too.
    """

    PAUSE_S = 0.03

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.answered = 0
        self.failures: list[str] = []

    def _run(self) -> None:
        calls: list[tuple[str, str, dict[str, Any] | None]] = [
            ("POST", "/v1/search", {"text": "a heist inside dreams", "k": 5}),
            ("POST", "/v1/recommend", {"likes": ["Inception"], "text": "in space", "k": 5}),
            ("GET", "/v1/items/inception-2010/similar?k=5", None),
            ("POST", "/v1/search", {"text": "robots", "mode": "sparse"}),
            ("GET", "/v1/items?q=the", None),
            ("GET", "/v1/facets", None),
        ]
        with httpx.Client(base_url=self._server.url, timeout=HANG_S) as client:
            while not self._stop.is_set():
                for method, path, body in calls:
                    try:
                        response = client.request(method, path, json=body)
                        if response.status_code != 200:
                            self.failures.append(f"{method} {path}: {response.status_code} {response.text}")
                    except httpx.HTTPError as error:
                        self.failures.append(f"{method} {path}: {error!r}")
                    self.answered += 1
                    self._stop.wait(self.PAUSE_S)

    def goes_on(self) -> None:
        """Wait until a whole round of queries has been answered from now on."""
        goal = self.answered + 12
        until(lambda: self.answered >= goal, "the load goes on")

    def __enter__(self) -> "Load":
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()


def _start(home: Path, folder: Path, **more: str) -> Server:
    port, log = free_port(), folder / "server.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "serve", "--port", "0", "--metrics-port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(home, **more), stdout=out, stderr=out, start_new_session=True)
    server = Server(home, process, log, f"http://127.0.0.1:{port}/metrics")
    named = home / "server.json"
    until(lambda: named.exists() or process.poll() is not None, f"the server starts ({log})")
    if process.poll() is not None:
        pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
    server.url = json.loads(named.read_text(encoding="utf-8"))["url"]
    return server


def _stop(server: Server) -> None:
    """SIGTERM ends it well: exit code 0, no `server.json`, and none of its processes is left."""
    server.client.close()
    if server.process.poll() is not None:
        pytest.fail(f"the server died under the tests, with {server.process.returncode}: {server.log.read_text(errors='replace')[-4000:]}")
    family = psutil.Process(server.process.pid).children(recursive=True)
    server.process.send_signal(signal.SIGTERM)
    try:
        code = server.process.wait(HANG_S)
        _, alive = psutil.wait_procs(family, timeout=HANG_S)
    finally:
        for process in [*family, psutil.Process(server.process.pid)] if server.process.poll() is None else family:
            if process.is_running():
                process.kill()
    assert code == 0, server.log.read_text(errors="replace")[-4000:]
    assert not (server.home / "server.json").exists()
    assert not alive, f"left behind: {alive}"
    assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.fixture(scope="session", params=["process", pytest.param("ray", marks=pytest.mark.full)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, otlp: Any, while_in: Any) -> Iterator[Server]:
    """A third of the bundled films, served in each placement; traced, logged and with an event log. On Ray the enhancer loads at start."""
    with ExitStack() as running:
        started = running.enter_context(_served(request.param, tmp_path_factory, otlp))
        # It ends with its tests, not with the session.
        while_in("e2e", lambda: running)
        yield started


@contextmanager
def _served(placement: str, tmp_path_factory: pytest.TempPathFactory, otlp: Any) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("e2e")
    home = new_home(tmp_path_factory.mktemp("home"))
    assert ingest(home)["items in the index"] > 100
    with otlp.collector() as collector:
        server = _start(
            home,
            folder,
            MATINEE_SERVING__PLACEMENT=placement,
            MATINEE_TRACING__ENDPOINT=collector.url,
            MATINEE_EVENTS__URI=str(home / "events"),
            MATINEE_EVENTS__FLUSH_S="0.5",
            MATINEE_SERVING__LOG_FORMAT="json",
            MATINEE_SERVING__LOG_LEVEL="INFO",
            MATINEE_ENHANCER__LOAD_AT_START=str(placement == "ray"),
        )
        server.collector = collector
        try:
            server.info_at_start = server.get("/v1/info")
            yield server
        finally:
            _stop(server)


@pytest.fixture(scope="session")
def tools() -> Any:
    """`run`, `Load`, `new_home`, `free_port`, `environment` for the test modules: `tests/` is no package."""
    return sys.modules[__name__]
