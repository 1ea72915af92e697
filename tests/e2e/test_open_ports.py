"""What listens while `python -m serve` runs on Ray, attacked from every address: only the API's port answers without Ray's token.

With metrics, which `make test` has, their port answers on 127.0.0.1 too, and nothing else does.
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import open_ports
from tests.open_ports import RayPorts
from tests.waiting import HANG_S, until


@dataclass
class OnRay:
    """A running server on Ray: the ports of its API and its metrics, and what listens of Ray."""

    api: int
    metrics: int | None
    ray: RayPorts


@pytest.fixture(scope="module", params=["metrics", pytest.param("no metrics", marks=pytest.mark.full)])
def on_ray(request: pytest.FixtureRequest, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnRay]:
    home = tools.new_home(tmp_path_factory.mktemp("home"))
    log = tmp_path_factory.mktemp("demo") / "log"
    jobs = tools.free_port()
    metrics = ("--metrics-port", "0") if request.param == "metrics" else ()
    command = open_ports.command("serve", jobs, "--port", "0", *metrics)
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
        until(lambda: open_ports.connects("127.0.0.1", jobs), "Ray's job API listens")
        server = json.loads((home / "server.json").read_text(encoding="utf-8"))
        assert (server["metrics"] is not None) == bool(metrics)
        api, measured = _port(server["url"]), _port(server["metrics"].removesuffix("/metrics")) if metrics else None
        yield OnRay(api, measured, open_ports.of_ray(process.pid, own=frozenset({api})))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(HANG_S)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_only_calls_between_deployments_listen_beyond_loopback(on_ray: OnRay) -> None:
    """Ray gives those a port of every interface. It takes nothing without the token: see the attack on it below."""
    assert {on_ray.api, on_ray.metrics} - {None} <= {port for ip, port in on_ray.ray.listening if ip == "127.0.0.1"}
    assert on_ray.ray.wide() <= set(on_ray.ray.grpc_codes(None)), on_ray.ray.wide()


def test_no_page_but_the_metrics_answers_without_the_token(on_ray: OnRay) -> None:
    answers, refused = on_ray.ray.open_pages()
    assert {(address, port) for address, port, _ in answers} == ({("127.0.0.1", on_ray.metrics)} if on_ray.metrics else set())
    # That server gives the metrics under every name. The parser refuses whatever else a page may be.
    assert all([*text_string_to_metric_families(answer.text)] for answer in answers.values())
    assert 401 in refused, "no port that asks for a token was found: these pages are the wrong ones"


def test_no_job_runs_without_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    statuses = on_ray.ray.submit(tmp_path / "ran", None)
    assert 401 in statuses.values()
    assert not {target: status for target, status in statuses.items() if status < 400 and target[1] != on_ray.metrics}
    assert not (tmp_path / "ran").exists()


def test_no_job_runs_with_another_token(on_ray: OnRay, tmp_path: Path) -> None:
    statuses = on_ray.ray.submit(tmp_path / "ran", "0" * 64)
    assert 403 in statuses.values()
    assert not {target: status for target, status in statuses.items() if status < 400 and target[1] != on_ray.metrics}
    assert not (tmp_path / "ran").exists()


def test_the_same_job_runs_with_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    assert 200 in on_ray.ray.run_job(tmp_path / "ran")
    until((tmp_path / "ran").exists, "the job runs")


def test_only_a_task_with_the_token_runs(on_ray: OnRay, tmp_path: Path) -> None:
    on_ray.ray.check_tasks(tmp_path / "ran")


def test_no_call_between_deployments_is_unpickled_without_the_token(on_ray: OnRay, tmp_path: Path) -> None:
    codes = on_ray.ray.grpc_codes(tmp_path / "ran")
    assert codes, "no replica's port was found"
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}
    assert not (tmp_path / "ran").exists()
