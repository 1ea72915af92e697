"""What listens while `python -m serve` runs on Ray, attacked from every address: only the API's port answers without Ray's token.

Each attack is tried with the token too, where it must work: otherwise its failure without one would say nothing.
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from tests.programs_environment import clean
from tests.waiting import HANG_S, until

JOBS = ("/api/job_agent/jobs/", "/api/jobs/")
# Ray's health page is open by design (`/api/local_raylet_healthz`: one word, on loopback), so it is not among them.
PAGES = (
    "/",
    "/metrics",
    "/logs",
    "/logs/",
    "/api/v0/logs",
    "/api/version",
    "/nodes?view=summary",
    "/-/routes",
)
TASK = """
import os, ray, sys
ray.init(sys.argv[1], logging_level="error")
ray.get(ray.remote(lambda path: os.mkdir(path)).remote(sys.argv[2]))
"""
# `python -m serve`, except that Ray's job API has a free port instead of its fixed one, which only one Ray of a machine gets.
SERVE = """
import runpy, sys

class FreePort:
    def find_spec(self, name, path, target=None):
        if name == "ray._private.parameter":
            from ray._private import ray_constants
            ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT = int(port)

port = sys.argv.pop()
sys.meta_path.insert(0, FreePort())
runpy.run_module("serve", run_name="__main__", alter_sys=True)
"""
ANSWER_S = 20


@dataclass
class OnRay:
    """A running server on Ray: where its API is, the token of its Ray, and the sockets on which its processes listen."""

    api: int
    gcs: int
    token: str
    listening: set[tuple[str, int]]

    def targets(self) -> list[tuple[str, int]]:
        """Every port but the API's, at every address of this machine where it takes connections."""
        ports = sorted({port for _, port in self.listening} - {self.api})
        return [(address, port) for port in ports for address in addresses() if connects(address, port)]


@pytest.fixture(scope="module")
def on_ray(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnRay]:
    home = tools.new_home(tmp_path_factory.mktemp("home"))
    log = tmp_path_factory.mktemp("demo") / "log"
    jobs = tools.free_port()
    command = [sys.executable, "-c", SERVE, "--port", "0", str(jobs)]
    # It needs no index for what is tried here.
    more = {"MATINEE_ENHANCER__ENABLED": "false", "MATINEE_SERVING__PLACEMENT": "ray"}
    env = tools.environment(home, **more)
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tools.ROOT, env=env, stdout=out, stderr=out, start_new_session=True)

    def said() -> str:
        return log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def announced() -> bool:
        assert process.poll() is None, said()
        return (home / "server.json").exists()

    try:
        until(announced, lambda: f"the server starts: {said()}")
        until(lambda: connects("127.0.0.1", jobs), "Ray's job API listens")
        yield _seen(process.pid, json.loads((home / "server.json").read_text(encoding="utf-8")))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(HANG_S)


def _seen(pid: int, announced: dict[str, Any]) -> OnRay:
    assert announced["metrics"] is None
    family = psutil.Process(pid).children(recursive=True)
    listening = set()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening |= {(c.laddr.ip, c.laddr.port) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    [gcs] = [process for process in family if process.name().startswith("gcs_server")]
    token = Path(gcs.environ()["RAY_AUTH_TOKEN_PATH"])
    words = {word.partition("=")[0]: word.partition("=")[2] for process in family for word in process.cmdline()}
    return OnRay(int(announced["url"].rpartition(":")[2]), int(words["--gcs-address"].rpartition(":")[2]), token.read_text(), listening)


def addresses() -> list[str]:
    """Those of all interfaces, IPv6 without link-local ones (which need the interface's name)."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = {a.address for nic in psutil.net_if_addrs().values() for a in nic if a.family in families}
    assert "127.0.0.1" in found
    return sorted(f"[{address}]" if ":" in address else address for address in found if not address.startswith("fe80"))


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address.strip("[]"), port), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def test_only_calls_between_deployments_listen_beyond_loopback(on_ray: OnRay) -> None:
    """Ray gives those a port of every interface. It takes nothing without the token: see the attack on it below."""
    assert on_ray.api in {port for ip, port in on_ray.listening if ip == "127.0.0.1"}
    wide = {port for ip, port in on_ray.listening if not ip.removeprefix("::ffff:").startswith("127.") and ip != "::1"}
    assert wide <= set(_grpc_codes(on_ray, None)), wide


def test_no_page_answers_without_the_token(on_ray: OnRay) -> None:
    answers = {}
    for address, port in on_ray.targets():
        for page in PAGES:
            with contextlib.suppress(httpx.HTTPError):
                answers[address, port, page] = httpx.get(f"http://{address}:{port}{page}", timeout=ANSWER_S).status_code
    assert not {target: status for target, status in answers.items() if status < 400}
    assert 401 in answers.values(), "no port that asks for a token was found: these pages are the wrong ones"


def test_no_job_runs_without_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    statuses = [_submit(on_ray, target, path, tmp_path / "ran", None) for target in on_ray.targets() for path in JOBS]
    assert 401 in statuses
    assert not [status for status in statuses if status is not None and status < 400]
    assert not (tmp_path / "ran").exists()


def test_no_job_runs_with_another_token(on_ray: OnRay, tmp_path: Path) -> None:
    statuses = [_submit(on_ray, target, path, tmp_path / "ran", "0" * 64) for target in on_ray.targets() for path in JOBS]
    assert 403 in statuses
    assert not [status for status in statuses if status is not None and status < 400]
    assert not (tmp_path / "ran").exists()


def test_the_same_job_runs_with_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    statuses = [_submit(on_ray, target, JOBS[0], tmp_path / "ran", on_ray.token) for target in on_ray.targets() if target[0] == "127.0.0.1"]
    assert 200 in statuses
    until((tmp_path / "ran").exists, "the job runs")


def test_no_task_runs_without_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    gates = [address for address, port in on_ray.targets() if port == on_ray.gcs]
    assert "127.0.0.1" in gates
    tries = [(f"{address}:{on_ray.gcs}", {"RAY_AUTH_MODE": "disabled"}) for address in gates]
    tries.append((f"127.0.0.1:{on_ray.gcs}", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}))
    # All at once: each waits for an answer of Ray most of its time.
    with ThreadPoolExecutor(len(tries)) as pool:
        codes = list(pool.map(lambda given: _task(given[0], tmp_path / "ran", given[1]), tries))
    assert 0 not in codes, [*zip(tries, codes, strict=True)]
    assert not (tmp_path / "ran").exists()


def test_the_same_task_runs_with_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    assert _task(f"127.0.0.1:{on_ray.gcs}", tmp_path / "ran", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": on_ray.token}) == 0
    assert (tmp_path / "ran").exists()


def test_no_call_between_deployments_is_unpickled_without_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    codes = _grpc_codes(on_ray, tmp_path / "ran")
    assert codes, "no replica's port was found"
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}
    assert not (tmp_path / "ran").exists()


class _Touch:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _grpc_codes(on_ray: OnRay, ran: Path | None) -> dict[int, grpc.StatusCode]:
    """Port -> what it says to a call that makes `ran` when it is unpickled; of the ports that know such calls at all."""
    with warnings.catch_warnings():
        # Of pydantic, about Ray's own models.
        warnings.simplefilter("ignore")
        from ray.serve.generated.serve_pb2 import ASGIRequest
        from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

    codes = {}
    request = ASGIRequest(pickled_request_metadata=pickle.dumps(_Touch(ran) if ran else None))
    for address, port in on_ray.targets():
        with grpc.insecure_channel(f"{address}:{port}") as channel:
            try:
                ASGIServiceStub(channel).HandleRequest(request, timeout=ANSWER_S)
                codes[port] = grpc.StatusCode.OK
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
                    codes[port] = error.code()
    return codes


def _submit(on_ray: OnRay, target: tuple[str, int], path: str, ran: Path, token: str | None) -> int | None:
    """The status of an order to make the folder `ran`; None where the port speaks no HTTP."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        return httpx.post(
            f"http://{target[0]}:{target[1]}{path}", json={"entrypoint": f"mkdir {ran}"}, headers=headers, timeout=ANSWER_S
        ).status_code
    except httpx.HTTPError:
        return None


def _task(address: str, ran: Path, more: dict[str, str]) -> int:
    """The exit code of a program that runs a task on the Ray at `address`."""
    env = clean() | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"} | more
    command = [sys.executable, "-c", TASK, address.strip("[]"), str(ran)]
    return subprocess.run(command, env=env, capture_output=True, timeout=HANG_S, check=False).returncode
