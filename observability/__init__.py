"""Dashboards, recording rules and alerts as Python; a Prometheus beside the demo; the pictures of docs/observability.md.

Not part of the served application: it knows the names of metrics, and neither Ray nor models.
"""
