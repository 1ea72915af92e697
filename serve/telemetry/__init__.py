"""Telemetry of the deployments: metrics, logs and traces."""
