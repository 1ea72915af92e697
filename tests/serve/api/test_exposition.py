"""Metrics on a port of this machine: no web page reads them through the user's browser."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIServer

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import ThreadingWSGIServer

from matinee.settings.serving import ServingSettings
from serve.api import exposition
from serve.api.clients import TrustedHosts
from serve.api.exposition import export_metrics
from tests.network import has_ipv6


@pytest.fixture(scope="module")
def metrics_url() -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("secrets", "", registry=registry).inc()
    with export_metrics(registry, "127.0.0.1", 0, ServingSettings(hosts=("films.example.org",))) as url:
        yield url


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:1"}, 200),
        ({"host": "films.example.org"}, 200),
        ({"host": "rebound.example.net"}, 403),
        ({"host": "127.0.0.1.example.net"}, 403),
        ({"host": "." * 10_000}, 403),
        ({"origin": "http://rebound.example.net"}, 403),
        ({"origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_metrics_on_loopback_answer_to_the_hosts_that_the_api_answers_to(
    metrics_url: str, headers: dict[str, str], status: int, path: str
) -> None:
    answer = httpx.get(metrics_url.removesuffix("/metrics") + path, headers=headers, trust_env=False)
    assert answer.status_code == status
    assert ("secrets_total 1.0" in answer.text) is (status == 200)


def test_nothing_is_answered_before_hosts_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, serves = [], threading.Event()

    def hosts(names: Iterable[str]) -> TrustedHosts:
        # Time for a server that is there to begin.
        serves.wait(0.2)
        steps.append("hosts")
        return TrustedHosts(names)

    def serve_forever(server: Any, *args: Any) -> None:
        steps.append("server")
        serves.set()
        WSGIServer.serve_forever(server, *args)

    monkeypatch.setattr(exposition, "TrustedHosts", hosts)
    monkeypatch.setattr(ThreadingWSGIServer, "serve_forever", serve_forever)
    with export_metrics(CollectorRegistry(), "127.0.0.1", 0, ServingSettings()) as url:
        assert httpx.get(url, trust_env=False).status_code == 200
    assert steps == ["hosts", "server"]


def test_metrics_on_the_loopback_address_of_ipv6() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with export_metrics(CollectorRegistry(), "::1", 0, ServingSettings()) as url:
        assert httpx.get(url, trust_env=False).status_code == 200


def test_metrics_for_other_machines_answer_to_any_name() -> None:
    """The probe's in a cluster, whose network policy says who reaches them."""
    with export_metrics(CollectorRegistry(), "0.0.0.0", 0, ServingSettings()) as url:
        assert httpx.get(url, headers={"host": "probe.films.svc"}, trust_env=False).status_code == 200
