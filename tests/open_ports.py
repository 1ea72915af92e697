"""Attacks on what listens while a program of ours runs Ray, from every address of this machine. Does not know pytest.

Each attack takes the token too: it must work with it, otherwise its failure without one would say nothing.
"""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil

from tests.programs_environment import clean
from tests.waiting import HANG_S

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
# It takes no CPU: the program under attack may have them all.
ray.get(ray.remote(num_cpus=0)(lambda path: os.mkdir(path)).remote(sys.argv[2]))
"""
# `python -m MODULE`, except that Ray's job API has a free port instead of its fixed one, which only one Ray of a machine gets.
MODULE = """
import runpy, sys

class FreePort:
    def find_spec(self, name, path, target=None):
        if name == "ray._private.parameter":
            from ray._private import ray_constants
            ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT = int(port)

port, module = sys.argv.pop(1), sys.argv.pop(1)
sys.meta_path.insert(0, FreePort())
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
ANSWER_S = 20
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


def command(module: str, jobs: int, *arguments: str) -> list[str]:
    """`python -m module ...` whose Ray has its job API on the port `jobs`."""
    return [sys.executable, "-c", MODULE, str(jobs), module, *arguments]


@dataclass
class RayPorts:
    """The Ray of a running program: its token, and the sockets on which its processes listen. `own` ports are the program's, not Ray's."""

    token_file: Path
    gcs: int
    listening: set[tuple[str, int]]
    own: frozenset[int] = frozenset()

    @property
    def token(self) -> str:
        return self.token_file.read_text()

    def targets(self) -> list[tuple[str, int]]:
        """Every port of Ray, at every address of this machine where it takes connections."""
        ports = sorted({port for _, port in self.listening} - self.own)
        return [(address, port) for port in ports for address in addresses() if connects(address, port)]

    def wide(self) -> set[int]:
        """The ports that other machines reach."""
        return {port for ip, port in self.listening if not ip.removeprefix("::ffff:").startswith("127.") and ip != "::1"}

    def open_pages(self) -> tuple[dict[tuple[str, int, str], httpx.Response], set[int]]:
        """Answers to requests without the token, by address, port and page; and the statuses of all that were refused."""
        answers = self._ask(PAGES, lambda url: httpx.get(url, timeout=ANSWER_S))
        refused = {target: answer for target, answer in answers.items() if answer.status_code >= 400}
        return {target: answers[target] for target in answers.keys() - refused}, {answer.status_code for answer in refused.values()}

    def submit(self, ran: Path, token: str | None) -> dict[tuple[str, int, str], int]:
        """The status of an order to make the folder `ran`, by address, port and path; without the ports that speak no HTTP."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        order = {"entrypoint": f"mkdir {ran}"}
        answers = self._ask(JOBS, lambda url: httpx.post(url, json=order, headers=headers, timeout=ANSWER_S))
        return {target: answer.status_code for target, answer in answers.items()}

    def run_job(self, ran: Path) -> set[int]:
        """The statuses of the same order with the token, from all that refuse it without one. To start a job takes a slow CPU long."""
        headers = {"Authorization": f"Bearer {self.token}"}
        order = {"entrypoint": f"mkdir {ran}"}
        refusing = ["http://{}:{}{}".format(*target) for target, status in self.submit(ran, None).items() if status == 401]
        return {httpx.post(url, json=order, headers=headers, timeout=HANG_S).status_code for url in refusing}

    def _ask(self, paths: Sequence[str], request: Callable[[str], httpx.Response]) -> dict[tuple[str, int, str], httpx.Response]:
        """The answers to requests for each path of each port, by address, port and path; without the ports that answer no HTTP in time."""

        def answer(target: tuple[str, int, str]) -> httpx.Response | None:
            with contextlib.suppress(httpx.HTTPError):
                return request("http://{}:{}{}".format(*target))
            return None

        targets = [(address, port, path) for address, port in self.targets() for path in paths]
        # Together: some ports take the request, and never answer.
        with ThreadPoolExecutor(8) as pool:
            found = zip(targets, pool.map(answer, targets), strict=True)
            return {target: got for target, got in found if got is not None}

    def check_tasks(self, ran: Path) -> None:
        """A program may run a task with the token, and without it, or with another one, it may not. The task makes the folder `ran`."""
        tokens = {"none": None, "another": "0" * 64, "its own": self.token}
        gates = [address for address, port in self.targets() if port == self.gcs]
        assert "127.0.0.1" in gates
        # All at once: each waits for an answer of Ray most of its time.
        with ThreadPoolExecutor(len(gates) * len(tokens)) as pool:
            tries = {
                (gate, name): pool.submit(_task, f"{gate}:{self.gcs}", ran.with_name(f"{ran.name} {name}"), token)
                for gate in gates
                for name, token in tokens.items()
            }
            codes = {try_: code.result() for try_, code in tries.items()}
        assert {(gate, name) for (gate, name), code in codes.items() if code == 0} == {(gate, "its own") for gate in gates}, codes
        assert [path.name for path in ran.parent.glob(f"{ran.name} *")] == [f"{ran.name} its own"]

    def grpc_codes(self, ran: Path | None) -> dict[int, grpc.StatusCode]:
        """Port -> what it says to a call that makes `ran` when it is unpickled; of the ports that know such calls at all."""
        with warnings.catch_warnings():
            # Of pydantic, about Ray's own models.
            warnings.simplefilter("ignore")
            from ray.serve.generated.serve_pb2 import ASGIRequest
            from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

        codes = {}
        request = ASGIRequest(pickled_request_metadata=pickle.dumps(_Touch(ran) if ran else None))
        for address, port in self.targets():
            with grpc.insecure_channel(f"{address}:{port}") as channel:
                try:
                    ASGIServiceStub(channel).HandleRequest(request, timeout=ANSWER_S)
                    codes[port] = grpc.StatusCode.OK
                except grpc.RpcError as error:
                    if error.code() in _REFUSED:
                        codes[port] = error.code()
        return codes


def of_ray(pid: int, own: frozenset[int] = frozenset()) -> RayPorts:
    """Of the Ray that the process `pid` runs, as it is now."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    listening = set()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening |= {(c.laddr.ip, c.laddr.port) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    [gcs] = [process for process in family if process.name().startswith("gcs_server")]
    words = {word.partition("=")[0]: word.partition("=")[2] for process in family for word in process.cmdline()}
    token = Path(gcs.environ()["RAY_AUTH_TOKEN_PATH"])
    return RayPorts(token, int(words["--gcs-address"].rpartition(":")[2]), listening, own)


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


class _Touch:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _task(address: str, ran: Path, token: str | None) -> int:
    """The exit code of a program that runs a task on the Ray at `address`."""
    authentication = {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    env = clean() | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"} | authentication
    words = [sys.executable, "-c", TASK, address.strip("[]"), str(ran)]
    return subprocess.run(words, env=env, capture_output=True, timeout=HANG_S, check=False).returncode
