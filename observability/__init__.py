"""Dashboards, recording rules and alerts: the Python they are made from, a Prometheus beside the demo, and the pictures of the docs.

Not part of the served application: it knows the names of metrics, and neither Ray nor models.
"""
