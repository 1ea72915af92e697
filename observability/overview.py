"""The dashboard "Overview": what users feel, and whether the parts have room."""

from observability.expressions import FAILURES, HEALTH_ENDPOINTS, USER_ENDPOINTS
from observability.panels import NO_QUERIES, NO_RULES, PART, PLACE, PanelSpec, any_or_zero, or_zero, quantiles, rate, selector, share

UID, TITLE = "matinee-overview", "Matinee / Overview"
DESCRIPTION = "What users feel: requests, errors, latency, degraded answers, recall; and whether the parts have room."

GPUS = PanelSpec(
    "GPUs of nodes",
    {"{{pod}} {{GpuIndex}}": selector("ray_node_gpus_utilization", where=PLACE)},
    "Time in which the GPU worked. Only where there are GPUs.",
    "percent",
    none="no GPU",
    top=100,
)

_COUNTED = f'endpoint!~"{HEALTH_ENDPOINTS}"'
_REQUESTS = rate("ray_matinee_requests_total", "", _COUNTED)
_REFUSED = or_zero(rate("ray_matinee_refused_total"), _REQUESTS)
_FAILED = or_zero(rate("ray_matinee_requests_total", "", _COUNTED, f'outcome=~"{FAILURES}"'), _REQUESTS)
_BUCKETS = rate("ray_matinee_request_ms_bucket", "le", f'endpoint=~"{USER_ENDPOINTS}"')

_NUMBERS = (
    PanelSpec("Requests", {"": _REQUESTS}, "Requests a second, health checks aside.", "reqps", "number", 4),
    PanelSpec(
        "Failed",
        {"": f"(({_FAILED}) + ({_REFUSED})) / ({_REQUESTS} + ({_REFUSED}))"},
        "Share of the requests that failed in the service, or that a full gateway refused.",
        "percentunit",
        "number",
        4,
    ),
    PanelSpec(
        "p95",
        {"": f"histogram_quantile(0.95, {_BUCKETS})"},
        "Time of search, recommend and similar, at the gateway.",
        "ms",
        "number",
        4,
    ),
    PanelSpec(
        "Degraded",
        {"": f"max({selector('matinee:degraded:ratio_rate10m')})"},
        "Part of the answers of ten minutes that left a part out because it was late, full or not there.",
        "percentunit",
        "number",
        4,
        NO_RULES,
    ),
    PanelSpec(
        "Recall@10",
        {"{{set}} {{mode}}": selector("matinee_probe_recall_at_10", where=PLACE)},
        "What the probe's labelled queries find, now. Without a query set there is none.",
        "percentunit",
        "number",
        4,
        NO_QUERIES,
    ),
    PanelSpec(
        "Alerts firing",
        {"": f'count(ALERTS{{alertname=~"Matinee.*",alertstate="firing",{PLACE}}}) or vector(0)'},
        "Alerts of Matinee's rules that fire now.",
        "short",
        "number",
        4,
    ),
)

_USERS = (
    PanelSpec(
        "Requests by endpoint",
        {"{{endpoint}}": rate("ray_matinee_requests_total", "endpoint", _COUNTED)},
        "Requests a second that were let in.",
        "reqps",
    ),
    PanelSpec(
        "Errors",
        {
            "{{outcome}}": any_or_zero(rate("ray_matinee_requests_total", "outcome", _COUNTED, 'outcome!="ok"'), _REQUESTS),
            "refused": _REFUSED,
        },
        "Failed answers a second, by the code in their envelope. `refused`: the gateway was full.",
        "reqps",
    ),
    PanelSpec(
        "Error budget burn",
        {
            "availability 1h": selector("matinee:availability:burn_rate1h"),
            "availability 6h": selector("matinee:availability:burn_rate6h"),
            "latency 1h": selector("matinee:latency:burn_rate1h"),
            "latency 6h": selector("matinee:latency:burn_rate6h"),
        },
        "How many times faster than the objectives allow. 14.4 for an hour, or 6 for six, is an alert.",
        none=NO_RULES,
    ),
    PanelSpec(
        "Latency by endpoint",
        quantiles("ray_matinee_request_ms", "endpoint", _COUNTED),
        "From a request's arrival at the gateway to its answer.",
        "ms",
    ),
    PanelSpec(
        "Latency by stage",
        quantiles("ray_matinee_stage_ms", "stage"),
        "Enhance, embed, retrieve: waiting included. The same stages as in each answer's Server-Timing.",
        "ms",
    ),
    PanelSpec(
        "Latency at the client",
        quantiles("matinee_probe_request_seconds", "endpoint", where=PLACE),
        "As the probe sees it: network, ingress and queues included.",
        "s",
        none="no probe",
    ),
    PanelSpec(
        "Degraded answers",
        {"{{part}} {{reason}}": any_or_zero(rate("ray_matinee_degraded_total", "part, reason"), _REQUESTS)},
        "Answers a second that were given without a part, and why: late (deadline), full (overloaded), gone or switched off (unavailable).",
        "reqps",
    ),
    PanelSpec(
        "Recall@10 over time",
        {"{{set}} {{mode}}": selector("matinee_probe_recall_at_10", where=PLACE)},
        "Labelled queries through the real API, each round of the probe.",
        "percentunit",
        none=NO_QUERIES,
        top=1,
    ),
    PanelSpec(
        "Empty answers",
        {"{{endpoint}}": share("ray_matinee_results", "endpoint", "0.5")},
        "Part of the answers without any item: filters or exclusions left nothing over.",
        "percentunit",
    ),
)

_ROOM = (
    PanelSpec(
        "Replicas against target",
        {
            "{{deployment}}": f"sum by (deployment) ({selector('ray_serve_deployment_replica_healthy', where=PART)})",
            "{{deployment}} target": f"max by (deployment) ({selector('ray_serve_autoscaling_target_replicas', where=PART)})",
        },
        "Healthy replicas, and what autoscaling wants.",
    ),
    PanelSpec(
        "Under way",
        {
            "at gateways": f"sum ({selector('ray_matinee_in_flight_requests')})",
            "{{deployment}}": f"sum by (deployment) ({selector('ray_serve_replica_processing_queries', where=PART)})",
        },
        "Requests that gateways have let in, and calls that replicas work on.",
    ),
    PanelSpec(
        "Queues of Serve",
        {"{{deployment}}": f"sum by (deployment) ({selector('ray_serve_deployment_queued_queries', where=PART)})"},
        "Calls that no replica has taken yet.",
    ),
    PanelSpec(
        "Wait in queues, p95",
        {"{{part}}": f"histogram_quantile(0.95, {rate('ray_matinee_queue_wait_ms_bucket', 'le, part')})"},
        "From the gateway's call to the moment when the part takes it up.",
        "ms",
    ),
    PanelSpec(
        "Use of replicas",
        {"{{deployment}}": f"avg by (deployment) ({selector('ray_serve_replica_utilization_percent', where=PART)})"},
        "Part of what max_ongoing_requests allows that is in use, over Ray's window of the last ten minutes.",
        "percent",
    ),
    PanelSpec("CPU of nodes", {"{{pod}}": selector("ray_node_cpu_utilization", where=PLACE)}, "Of the pod's CPUs.", "percent", top=100),
    PanelSpec(
        "Memory of nodes",
        {"{{pod}}": f"{selector('ray_node_mem_used', where=PLACE)} / {selector('ray_node_mem_total', where=PLACE)}"},
        "Of the pod's memory.",
        "percentunit",
        top=1,
    ),
    GPUS,
    PanelSpec(
        "Pods that went away",
        {"{{pod}}": f"sum by (pod) (resets({selector('up', where=PLACE)}[1h]))"},
        "How often in the last hour a pod that was there did not answer: a container that restarted, or one too busy to.",
    ),
)

ROWS = {"Now": _NUMBERS, "What users feel": _USERS, "Room": _ROOM}
