"""The PromQL that the rules share: what counts as a request, a failure, a series of this release. Knows no rule and no panel."""

from observability.objectives import SELECTOR
from serve.errors import STATUS

GROUP = "namespace, matinee_release, application"
FAILURES = "|".join([*sorted(code for code, status in STATUS.items() if status >= 500), "internal", "5.."])
"""Outcomes that are the service's fault, by their codes."""
USER_ENDPOINTS = "search|recommend|similar"
"""The endpoints that people wait for, and that the latency objective is about."""
HEALTH_ENDPOINTS = "livez|readyz"


def selector(metric: str, *matchers: str) -> str:
    """A metric of this release."""
    return f"{metric}{{{','.join([*matchers, SELECTOR])}}}"


def rate(metric: str, window: str, *matchers: str, by: str = GROUP) -> str:
    """Events a second of this release."""
    return f"sum by ({by}) (rate({selector(metric, *matchers)}[{window}]))"
