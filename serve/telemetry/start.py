"""The telemetry of a replica, as settings say: what each deployment starts first."""

from matinee.settings.serving import ServingSettings
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink, RaySink


def start_telemetry(settings: ServingSettings, part: str) -> Metrics:
    """Set up this process's log lines; returns its metrics."""
    logs.configure(settings, part)
    return Metrics(RaySink() if settings.metrics else NullSink())
