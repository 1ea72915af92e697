"""What a sync that repeats tells Prometheus. Its own registry and port: it is no part of the server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from matinee.errors import MatineeError, SettingsError
from matinee.settings.addresses import url_of
from train.syncing.round import SyncReport

CHANGES = ("written", "deleted", "unchanged", "rejected")


class SyncMetrics:
    """The metrics of one process. Before the first success there is no time of one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._items = Counter("matinee_sync_items", "Items by what a round did with them", ["change"], registry=self.registry)
        self._seconds = Gauge("matinee_sync_round_seconds", "Time that the last round took that succeeded, s", registry=self.registry)
        self._rounds = Counter("matinee_sync_rounds", "Rounds, failed ones included", registry=self.registry)
        self._failures = Counter("matinee_sync_failures", "Rounds that failed, by the error's code", ["reason"], registry=self.registry)
        self._success: Gauge | None = None

    def record_success(self, report: SyncReport) -> None:
        self._rounds.inc()
        for change in CHANGES:
            self._items.labels(change).inc(getattr(report, change))
        self._seconds.set(sum(report.seconds.values()))
        if self._success is None:
            name = "matinee_sync_last_success_timestamp_seconds"
            self._success = Gauge(name, "End of the last round that succeeded, Unix time", registry=self.registry)
        self._success.set(time.time())

    def record_failure(self, error: Exception) -> None:
        self._rounds.inc()
        self._failures.labels(error.code if isinstance(error, MatineeError) else "machine").inc()


@contextmanager
def serve_metrics(metrics: SyncMetrics, host: str, port: int) -> Iterator[str]:
    """Prometheus text on a port until the end of the `with`; yields its URL. Raises `SettingsError` where the port can't be had."""
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise SettingsError(f"--metrics-port {port} on {host}: {error.strerror or error}; stop what runs there, or take another") from None
    try:
        yield f"{url_of(host, server.server_port)}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
