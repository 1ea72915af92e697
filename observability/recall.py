"""The dashboard "Recall and index": what searches find, measured all the time, and the index they find it in."""

from observability.panels import NO_QUERIES, PART, PLACE, View, any_or_zero, of, quantiles, rate

UID, TITLE = "matinee-recall", "Matinee / Recall and index"
SAYS = "What searches find, measured by the probe through the real API, and the index they find it in."

_BUILT = f"max ({of('ray_matinee_index_built_timestamp_seconds')})"
_ROUNDS = f"sum (rate({of('matinee_probe_rounds_total', of=PLACE)}[$__rate_interval]))"
_REQUESTS = rate("ray_matinee_requests_total")

_FOUND = (
    View(
        "Recall@10",
        {"{{set}} {{mode}}": of("matinee_probe_recall_at_10", of=PLACE)},
        "Part of the relevant items among the first ten, by query set and mode.",
        "percentunit",
        width=12,
        none=NO_QUERIES,
        top=1,
    ),
    View(
        "NDCG@10",
        {"{{set}} {{mode}}": of("matinee_probe_ndcg_at_10", of=PLACE)},
        "How high the relevant items stand.",
        "percentunit",
        width=12,
        none=NO_QUERIES,
        top=1,
    ),
    View(
        "Against the usual",
        {"{{set}} {{mode}}": f"{of('matinee:recall:avg', of=PLACE)} / {of('matinee:recall:usual', of=PLACE)}"},
        "Recall of the last minutes against its median; a drop below what `alerts.recall.drop` leaves is an alert.",
        "percentunit",
        none=f"{NO_QUERIES}, or no rules",
    ),
    View(
        "Approximate against exact",
        {"filtered: {{filtered}}": of("matinee_probe_ann_recall_at_10", of=PLACE)},
        "Part of exact search's first ten that the approximate index finds. None where all are exact: embedded, without a graph.",
        "percentunit",
        none="searched exactly, or the probe's key lacks the scope admin",
        top=1,
    ),
    View(
        "Latency at the client",
        quantiles("matinee_probe_request_seconds", "endpoint", of_=PLACE),
        "As the probe sees it.",
        "s",
        none="no probe",
    ),
)

_PROBE = (
    View(
        "Queries",
        {"{{set}}": of("matinee_probe_queries", of=PLACE)},
        "Labelled queries asked each round; 0: no query set.",
        kind="number",
        width=4,
    ),
    View(
        "Unknown items",
        {"{{set}}": of("matinee_probe_unknown_items", of=PLACE), "{{set}}, of": of("matinee_probe_labelled_items", of=PLACE)},
        "Labelled items of the query set that are not in the index: it lost them, or the set is of another catalogue, or of another day.",
        kind="number",
        width=5,
        none=NO_QUERIES,
    ),
    View(
        "Answers the probe",
        {"": f"min ({of('matinee_probe_up', of=PLACE)})"},
        "1: the server reported its state to the probe, as any client may ask it; 0: it did not.",
        kind="number",
        width=5,
        none="no probe",
    ),
    View(
        "Last success",
        {"": f"time() - max ({of('matinee_probe_last_success_timestamp_seconds', of=PLACE)})"},
        "Since the probe's last whole round.",
        "s",
        "number",
        5,
        "no whole round yet, or no probe",
    ),
    View(
        "Failures of the probe",
        {"{{reason}}": any_or_zero(f"sum by (reason) (rate({of('matinee_probe_failures_total', of=PLACE)}[$__rate_interval]))", _ROUNDS)},
        "Calls a second that failed.",
        "reqps",
        "number",
        5,
        "no probe",
    ),
)

_INDEX = (
    View(
        "Version in use",
        {"": f"count by (version, fingerprint) ({of('ray_matinee_index_info')} == 1)"},
        "Which index version Retrievers answer from.",
        kind="table",
        width=12,
    ),
    View(
        "Items",
        {"": f"max ({of('ray_matinee_index_items')})"},
        "In the version that is served, when it was opened; `/v1/info` counts what was written since.",
        kind="number",
        width=6,
    ),
    View("Age", {"": f"time() - {_BUILT}"}, "Since the version was built.", "s", "number", 6),
    View("Index answers", {"{{pod}}": f"min by (pod) ({of('ray_matinee_index_up')})"}, "1: the Retriever on that pod gets answers.", top=1),
    View(
        "Errors of the index",
        {"{{reason}}": any_or_zero(rate("ray_matinee_index_errors_total", "reason"), _REQUESTS)},
        "Calls a second that failed.",
        "reqps",
    ),
    View(
        "Age over time",
        {"as the probe sees it": of("matinee_probe_index_age_seconds", of=PLACE), "as built": f"time() - {_BUILT}"},
        "Freshness.",
        "s",
    ),
    View("Retrieval", quantiles("ray_matinee_stage_ms", "stage", 'stage="retrieve"'), "Time of the stage, waiting included.", "ms"),
    View(
        "Calls",
        quantiles("ray_serve_deployment_processing_latency_ms", "deployment", of_=PART),
        "Time of a call in a replica, by deployment; choose Retriever at the top.",
        "ms",
    ),
    View(
        "Items in an answer",
        quantiles("ray_matinee_results", "endpoint"),
        "Between the bounds 1, 2, 5, 10 ...: fewer than were asked for, where filters leave no more over.",
    ),
    View(
        "Events",
        {
            "{{kind}}": any_or_zero(rate("ray_matinee_events_total", "kind"), _REQUESTS),
            "dropped: {{reason}}": any_or_zero(rate("ray_matinee_events_dropped_total", "reason"), _REQUESTS),
        },
        "Impressions and feedback a second; only where events.uri is set.",
    ),
)

ROWS = {"What searches find": _FOUND, "The probe": _PROBE, "The index": _INDEX}
