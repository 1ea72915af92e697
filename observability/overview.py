"""The dashboard "Overview": what users feel, and whether the parts have room."""

from observability.expressions import ASKING, FAILURES, PROBES
from observability.panels import NO_QUERIES, NO_RULES, PART, PLACE, View, any_or_zero, of, quantiles, rate, share, zero

UID, TITLE = "matinee-overview", "Matinee / Overview"
SAYS = "What users feel: requests, errors, latency, degraded answers, recall; and whether the parts have room."

_ASKED = f'endpoint!~"{PROBES}"'
_REQUESTS = rate("ray_matinee_requests_total", "", _ASKED)
_REFUSED = zero(rate("ray_matinee_refused_total"), _REQUESTS)
_FAILED = zero(rate("ray_matinee_requests_total", "", _ASKED, f'outcome=~"{FAILURES}"'), _REQUESTS)
_BUCKETS = rate("ray_matinee_request_ms_bucket", "le", f'endpoint=~"{ASKING}"')

_NUMBERS = (
    View("Requests", {"": _REQUESTS}, "Requests a second, health checks aside.", "reqps", "number", 4),
    View(
        "Failed",
        {"": f"(({_FAILED}) + ({_REFUSED})) / ({_REQUESTS} + ({_REFUSED}))"},
        "Share of the requests that failed in the service, or that a full gateway refused.",
        "percentunit",
        "number",
        4,
    ),
    View(
        "p95",
        {"": f"histogram_quantile(0.95, {_BUCKETS})"},
        "Time of search, recommend and similar, at the gateway.",
        "ms",
        "number",
        4,
    ),
    View(
        "Degraded",
        {"": f"max({of('matinee:degraded:ratio_rate10m')})"},
        "Part of the answers of ten minutes that left a part out because it was late, full or not there.",
        "percentunit",
        "number",
        4,
        NO_RULES,
    ),
    View(
        "Recall@10",
        {"{{set}} {{mode}}": of("matinee_probe_recall_at_10", of=PLACE)},
        "What the probe's labelled queries find, now. Without a query set there is none.",
        "percentunit",
        "number",
        4,
        NO_QUERIES,
    ),
    View(
        "Alerts firing",
        {"": f'count(ALERTS{{alertname=~"Matinee.*",alertstate="firing",{PLACE}}}) or vector(0)'},
        "Alerts of Matinee's rules that fire now.",
        "short",
        "number",
        4,
    ),
)

_USERS = (
    View(
        "Requests by endpoint",
        {"{{endpoint}}": rate("ray_matinee_requests_total", "endpoint", _ASKED)},
        "Requests a second that were let in.",
        "reqps",
    ),
    View(
        "Errors",
        {
            "{{outcome}}": any_or_zero(rate("ray_matinee_requests_total", "outcome", _ASKED, 'outcome!="ok"'), _REQUESTS),
            "refused": _REFUSED,
        },
        "Failed answers a second, by the code in their envelope. `refused`: the gateway was full.",
        "reqps",
    ),
    View(
        "Error budget burn",
        {
            "availability 1h": of("matinee:availability:burn_rate1h"),
            "availability 6h": of("matinee:availability:burn_rate6h"),
            "latency 1h": of("matinee:latency:burn_rate1h"),
            "latency 6h": of("matinee:latency:burn_rate6h"),
        },
        "How many times faster than the objectives allow. 14.4 for an hour, or 6 for six, is an alert.",
        none=NO_RULES,
    ),
    View(
        "Latency by endpoint",
        quantiles("ray_matinee_request_ms", "endpoint", _ASKED),
        "From a request's arrival at the gateway to its answer.",
        "ms",
    ),
    View(
        "Latency by stage",
        quantiles("ray_matinee_stage_ms", "stage"),
        "Enhance, embed, retrieve: waiting included. The same stages as in each answer's Server-Timing.",
        "ms",
    ),
    View(
        "Latency at the client",
        quantiles("matinee_probe_request_seconds", "endpoint", of_=PLACE),
        "As the probe sees it: network, ingress and queues included.",
        "s",
        none="no probe",
    ),
    View(
        "Degraded answers",
        {"{{part}} {{reason}}": any_or_zero(rate("ray_matinee_degraded_total", "part, reason"), _REQUESTS)},
        "Answers a second that were given without a part, and why: late (deadline), full (overloaded), gone or switched off (unavailable).",
        "reqps",
    ),
    View(
        "Recall@10 over time",
        {"{{set}} {{mode}}": of("matinee_probe_recall_at_10", of=PLACE)},
        "Labelled queries through the real API, each round of the probe.",
        "percentunit",
        none=NO_QUERIES,
        top=1,
    ),
    View(
        "Empty answers",
        {"{{endpoint}}": share("ray_matinee_results", "endpoint", "0.5")},
        "Part of the answers without any item: filters or exclusions left nothing over.",
        "percentunit",
    ),
)

_ROOM = (
    View(
        "Replicas against target",
        {
            "{{deployment}}": f"sum by (deployment) ({of('ray_serve_deployment_replica_healthy', of=PART)})",
            "{{deployment}} target": f"max by (deployment) ({of('ray_serve_autoscaling_target_replicas', of=PART)})",
        },
        "Healthy replicas, and what autoscaling wants.",
    ),
    View(
        "Under way",
        {
            "at gateways": f"sum ({of('ray_matinee_in_flight_requests')})",
            "{{deployment}}": f"sum by (deployment) ({of('ray_serve_replica_processing_queries', of=PART)})",
        },
        "Requests that gateways have let in, and calls that replicas work on.",
    ),
    View(
        "Queues of Serve",
        {"{{deployment}}": f"sum by (deployment) ({of('ray_serve_deployment_queued_queries', of=PART)})"},
        "Calls that no replica has taken yet.",
    ),
    View(
        "Wait in queues, p95",
        {"{{part}}": f"histogram_quantile(0.95, {rate('ray_matinee_queue_wait_ms_bucket', 'le, part')})"},
        "From the gateway's call to the moment when the part takes it up.",
        "ms",
    ),
    View(
        "Use of replicas",
        {"{{deployment}}": f"avg by (deployment) ({of('ray_serve_replica_utilization_percent', of=PART)})"},
        "Part of what max_ongoing_requests allows that is in use, over Ray's window of the last ten minutes.",
        "percent",
    ),
    View("CPU of nodes", {"{{pod}}": of("ray_node_cpu_utilization", of=PLACE)}, "Of the pod's CPUs.", "percent", top=100),
    View(
        "Memory of nodes",
        {"{{pod}}": f"{of('ray_node_mem_used', of=PLACE)} / {of('ray_node_mem_total', of=PLACE)}"},
        "Of the pod's memory.",
        "percentunit",
        top=1,
    ),
    View(
        "GPUs of nodes",
        {"{{pod}} {{GpuIndex}}": of("ray_node_gpus_utilization", of=PLACE)},
        "Time in which the GPU worked. Only where there are GPUs.",
        "percent",
        none="no GPU",
        top=100,
    ),
    View(
        "Pods that went away",
        {"{{pod}}": f"sum by (pod) (resets({of('up', of=PLACE)}[1h]))"},
        "How often in the last hour a pod that was there did not answer: a container that restarted, or one too busy to.",
    ),
)

ROWS = {"Now": _NUMBERS, "What users feel": _USERS, "Room": _ROOM}
