"""A Prometheus process of our own: started on a configuration, asked over HTTP, stopped. Knows no metric and no dashboard."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

START_S = 30
_RETENTION = "7d"
HOW = "prometheus is not installed: `apt-get install prometheus`, or https://prometheus.io/download/ (the binary on the PATH)"


class PrometheusError(Exception):
    """Prometheus is missing, did not start, or refused a query."""


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, times and values."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus at `url`."""

    url: str

    def instant(self, expression: str) -> list[Series]:
        """The series of an expression, now."""
        samples = self._ask("query", query=expression)["result"]
        return [Series(entry["metric"], ((float(entry["value"][0]), float(entry["value"][1])),)) for entry in samples]

    def over(self, expression: str, seconds: float, step: float) -> list[Series]:
        """The series of an expression over the last `seconds`."""
        now = time.time()
        matrix = self._ask("query_range", query=expression, start=now - seconds, end=now, step=step)["result"]
        return [Series(entry["metric"], tuple((float(t), float(v)) for t, v in entry["values"])) for entry in matrix]

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts, with their rendered texts."""
        alerts: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return alerts

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped, and how that went."""
        targets: list[dict[str, Any]] = self._ask("targets", state="active")["activeTargets"]
        return targets

    def _ask(self, what: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=params, timeout=30, trust_env=False)
        body = answer.json()
        if body["status"] != "success":
            raise PrometheusError(f"{body['error']}: {params.get('query', what)}")
        return body["data"]


def binary() -> str:
    """The installed Prometheus. Raises `PrometheusError` that says how to install one."""
    path = shutil.which("prometheus")
    if path is None:
        raise PrometheusError(HOW)
    return path


@contextmanager
def running(config: Mapping[str, Any], folder: Path, port: int) -> Iterator[Prometheus]:
    """A Prometheus on a loopback port, with its data in `folder`; stopped at the end. Raises `PrometheusError` with its own words."""
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "prometheus.yaml", folder / "prometheus.log"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    command = [binary(), f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}", f"--storage.tsdb.retention.time={_RETENTION}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with log.open("wb") as out:
        # A group of its own: Ctrl-C reaches this process, which then stops it in order.
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)  # noqa: S603
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        _wait_ready(prometheus, process, log)
        yield prometheus
    finally:
        process.terminate()
        process.wait()


def _wait_ready(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{prometheus.url}/-/ready", timeout=2, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise PrometheusError("Prometheus did not start: " + " ".join(last))
