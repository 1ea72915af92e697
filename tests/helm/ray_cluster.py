"""A Ray cluster of one process tree, as KubeRay would start it from the chart: its environment, its custom resources, its Serve REST API.

It has ports and a folder of its own, and ends with its process group, so that other clusters of the machine are left alone.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.helm.chart import ROOT, Object, one, serve_config
from tests.programs_environment import clean
from tests.waiting import HANG_S, until


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Cluster:
    """A started cluster; `deploy` is what the operator does with serveConfigV2."""

    dashboard: httpx.Client

    def deploy(self, objects: Sequence[Object], **others: str) -> None:
        """`others`: applications beside the chart's, by name and import path; each answers under its name."""
        config = serve_config(objects)
        config["applications"] += [{"name": name, "route_prefix": f"/{name}", "import_path": path} for name, path in others.items()]
        # In a pod every interface, here none that others could reach.
        config["http_options"]["host"] = "127.0.0.1"
        answer = self.dashboard.put("/api/serve/applications/", json=config)
        assert answer.is_success, answer.text

    def application(self) -> dict[str, Any]:
        answer = self.dashboard.get("/api/serve/applications/").json()
        found: dict[str, Any] = answer["applications"].get("matinee", {})
        return found

    def wait_running(self) -> dict[str, Any]:
        """The application once it runs and every deployment has what it should. Raises with its own message where it fails."""

        def running() -> dict[str, Any] | None:
            app = self.application()
            assert app.get("status") != "DEPLOY_FAILED", app["message"]
            healthy = app.get("status") == "RUNNING" and all(d["status"] == "HEALTHY" for d in app["deployments"].values())
            return app if healthy else None

        found: dict[str, Any] = until(running, lambda: f"the application runs: {self.application()}")
        return found

    def replicas(self) -> dict[str, set[str]]:
        """Deployment -> the ids of its replicas."""
        return {name: {r["replica_id"] for r in d["replicas"]} for name, d in self.application()["deployments"].items()}


def chart_environment(objects: Sequence[Object]) -> dict[str, str]:
    """What the chart tells Ray's processes, but the places of a container."""
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e["value"] for e in head["env"] if "value" in e and e["name"].startswith(("RAY_", "OMP_"))}


@contextmanager
def ray_cluster(objects: Sequence[Object]) -> Iterator[Cluster]:
    """A head that also works, with the environment of the chart."""
    dashboard, gcs, client, agent, metrics = free_ports(5)
    # Short: the path of a socket has 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="mt", dir="/tmp"))
    token = secrets.token_hex(32)
    env = clean() | chart_environment(objects) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONPATH": str(ROOT)}
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    options = {
        "port": gcs,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "metrics-export-port": metrics,
        "temp-dir": folder,
        "num-cpus": 64,
        "resources": '{"matinee_models": 1000, "matinee_web": 1000}',
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{dashboard}", headers={"Authorization": f"Bearer {token}"}, timeout=HANG_S) as http:
            cluster = Cluster(http)
            _wait_started(cluster, process, folder / "log")
            yield cluster
    finally:
        # Not politely: every replica would get its drain.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        http.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_started(cluster: Cluster, process: subprocess.Popen[bytes], log: Path) -> None:
    def said() -> str:
        return log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def answers() -> bool:
        assert process.poll() is None, said()
        with contextlib.suppress(httpx.HTTPError):
            return cluster.dashboard.get("/api/serve/applications/", timeout=10).is_success
        return False

    until(answers, lambda: f"Ray starts: {said()}")
