"""The recording rules: burn rates of both objectives over every window, and what is usual for recall.

Burn rates follow the SRE workbook: at 1 the error budget lasts exactly the objective's 30 days. Does not know the alerts.
"""

from typing import Any

from observability.expressions import FAILURES, HEALTH_ENDPOINTS, USER_ENDPOINTS, rate, selector

SETS = "namespace, matinee_release, set, mode"
"""Without the probe's pod: what is usual outlives it."""
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def burn_rates() -> list[dict[str, Any]]:
    """Both objectives' burn rates over every window."""
    # Requests that the middleware refuses are counted apart and have no outcome. They count as requests, and as failed ones.
    counted = ('__name__=~"ray_matinee_(requests|refused)_total"', f'endpoint!~"{HEALTH_ENDPOINTS}"')
    asking = f'endpoint=~"{USER_ENDPOINTS}"'
    rules = []
    for window in WINDOWS:
        requests, failures = (f"matinee:{what}:rate{window}" for what in ("requests", "failures"))
        failed = rate("", window, *counted, f'outcome=~"|{FAILURES}"')
        good = rate("ray_matinee_request_ms_bucket", window, asking, 'le="<latency_bound>"')
        answered = rate("ray_matinee_request_ms_count", window, asking)
        rules += [
            {"record": requests, "expr": rate("", window, *counted)},
            {"record": failures, "expr": f"{failed} or 0 * {selector(requests)}"},
            {
                "record": f"matinee:availability:burn_rate{window}",
                "expr": f"{selector(failures)} / {selector(requests)} / (1 - <availability>)",
            },
            {"record": f"matinee:latency:burn_rate{window}", "expr": f"(1 - {good} / {answered}) / (1 - <latency>)"},
        ]
    return rules


def quality() -> list[dict[str, Any]]:
    requests = rate("ray_matinee_requests_total", "10m", f'endpoint=~"{USER_ENDPOINTS}|describe"')
    degraded = rate("ray_matinee_degraded_total", "10m")
    probe = selector("matinee_probe_recall_at_10")
    return [
        {"record": "matinee:degraded:ratio_rate10m", "expr": f"({degraded} or 0 * {requests}) / {requests}"},
        {"record": "matinee:recall:avg", "expr": f"avg by ({SETS}) (avg_over_time({probe}[<recall_window>]))"},
        # The median: an outlier, or a bad half of a day, does not move what is usual.
        {"record": "matinee:recall:usual", "expr": f"avg by ({SETS}) (quantile_over_time(0.5, {probe}[<recall_baseline>]))"},
    ]
