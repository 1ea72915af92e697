"""`make observe`: it finds what runs here, also when that comes later or moves, says what is missing, and ends with its Prometheus."""

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from rich.console import Console

from matinee.settings.load import load_settings
from observability import observe, prometheus
from observability.prometheus import Prometheus, PrometheusError
from tests.observability.live import e2e
from tests.observability.programs import needs
from tests.waiting import HANG_S, until

needs_prometheus = needs("prometheus")


@pytest.fixture
def metrics() -> Iterator[Callable[[str], str]]:
    """Starts servers that export one gauge; returns their URLs."""
    started = []

    def start(name: str) -> str:
        registry = CollectorRegistry()
        Gauge(name, name, registry=registry).set(1)
        server, thread = start_http_server(0, "127.0.0.1", registry)
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def announce(home: Path, metrics: str, name: str = "server.json", pid: int | None = None) -> None:
    named = {"url": "http://127.0.0.1:1", "pid": pid or os.getpid(), "metrics": metrics}
    (home / name).write_text(json.dumps(named), encoding="utf-8")


@needs_prometheus
def test_it_follows_what_runs_here_and_stops_clean(tmp_path: Path, metrics: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(observe, "console", Console(file=said, width=300))
    monkeypatch.setattr(observe, "LOOK_S", 0.1)
    settings = load_settings({"home": tmp_path}, environ={})
    announce(tmp_path, metrics("of_dead_server"), pid=2**30)
    port, stop = e2e.free_port(), threading.Event()
    thread = threading.Thread(target=observe.observe, args=(settings, port, stop))
    thread.start()
    try:
        until(lambda: "no server here exports metrics now" in said.getvalue(), said.getvalue)
        source = Prometheus(f"http://127.0.0.1:{port}")
        announce(tmp_path, metrics("of_server"))
        # Where `make demo` found the usual port taken.
        announce(tmp_path, metrics("of_probe"), "probe.json")
        for name in ("of_probe", "of_server"):
            [series] = until(lambda name=name: source.instant(name), f"{name} is scraped")
            assert series.labels["namespace"] == "local"
        announce(tmp_path, metrics("of_next_server"))
        until(lambda: source.instant("of_next_server"), "the server that was started anew is scraped")
        assert not source.instant("of_dead_server")
        assert {rule["name"] for rule in rules(source)} >= {"MatineeRecallDrop", "matinee:recall:usual"}
    finally:
        stop.set()
        thread.join(HANG_S)
    assert not thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        source.instant("up")
    assert "scraping 127.0.0.1:" in said.getvalue()


def rules(source: Prometheus) -> list[dict[str, Any]]:
    found = httpx.get(f"{source.url}/api/v1/rules").json()["data"]["groups"]
    return [rule for group in found for rule in group["rules"]]


def test_without_prometheus_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PrometheusError, match="apt-get install prometheus"):
        prometheus.binary()


@needs_prometheus
def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(PrometheusError, match=r"did not start.*nonsense"),
        prometheus.running({"nonsense": 1}, tmp_path, e2e.free_port()),
    ):
        pass


@needs_prometheus
def test_a_query_that_is_none_is_refused_in_its_own_words(tmp_path: Path) -> None:
    with prometheus.running({"global": {}}, tmp_path, e2e.free_port()) as source, pytest.raises(PrometheusError, match="parse error"):
        source.instant("sum(")
