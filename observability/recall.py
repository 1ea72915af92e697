"""The dashboard "Recall and index": what searches find, measured all the time, and the index they find it in."""

from observability.panels import NO_QUERIES, PART, PLACE, PanelSpec, any_or_zero, quantiles, rate, selector

UID, TITLE = "matinee-recall", "Matinee / Recall and index"
DESCRIPTION = "What searches find, measured by the probe through the real API, and the index they find it in."

_BUILT = f"max ({selector('ray_matinee_index_built_timestamp_seconds')})"
_ROUNDS = f"sum (rate({selector('matinee_probe_rounds_total', where=PLACE)}[$__rate_interval]))"
_REQUESTS = rate("ray_matinee_requests_total")

_RECALL = (
    PanelSpec(
        "Recall@10",
        {"{{set}} {{mode}}": selector("matinee_probe_recall_at_10", where=PLACE)},
        "Part of the relevant items among the first ten, by query set and mode.",
        "percentunit",
        width=12,
        none=NO_QUERIES,
        top=1,
    ),
    PanelSpec(
        "NDCG@10",
        {"{{set}} {{mode}}": selector("matinee_probe_ndcg_at_10", where=PLACE)},
        "How high the relevant items stand.",
        "percentunit",
        width=12,
        none=NO_QUERIES,
        top=1,
    ),
    PanelSpec(
        "Against the usual",
        {"{{set}} {{mode}}": f"{selector('matinee:recall:avg', where=PLACE)} / {selector('matinee:recall:usual', where=PLACE)}"},
        "Recall of the last minutes against its median; a drop below what `alerts.recall.drop` leaves is an alert.",
        "percentunit",
        none=f"{NO_QUERIES}, or no rules",
    ),
    PanelSpec(
        "Approximate against exact",
        {"filtered: {{filtered}}": selector("matinee_probe_ann_recall_at_10", where=PLACE)},
        "Part of exact search's first ten that the approximate index finds. None where all are exact: embedded, without a graph.",
        "percentunit",
        none="searched exactly, or the probe's key lacks the scope admin",
        top=1,
    ),
    PanelSpec(
        "Latency at the client",
        quantiles("matinee_probe_request_seconds", "endpoint", where=PLACE),
        "As the probe sees it.",
        "s",
        none="no probe",
    ),
)

_PROBE = (
    PanelSpec(
        "Queries",
        {"{{set}}": selector("matinee_probe_queries", where=PLACE)},
        "Labelled queries asked each round; 0: no query set.",
        kind="number",
        width=4,
    ),
    PanelSpec(
        "Unknown items",
        {
            "{{set}}": selector("matinee_probe_unknown_items", where=PLACE),
            "{{set}}, of": selector("matinee_probe_labelled_items", where=PLACE),
        },
        "Labelled items of the query set that are not in the index: it lost them, or the set is of another catalogue, or of another day.",
        kind="number",
        width=5,
        none=NO_QUERIES,
    ),
    PanelSpec(
        "Answers the probe",
        {"": f"min ({selector('matinee_probe_up', where=PLACE)})"},
        "1: the server reported its state to the probe, as any client may ask it; 0: it did not.",
        kind="number",
        width=5,
        none="no probe",
    ),
    PanelSpec(
        "Last success",
        {"": f"time() - max ({selector('matinee_probe_last_success_timestamp_seconds', where=PLACE)})"},
        "Since the probe's last whole round.",
        "s",
        "number",
        5,
        "no whole round yet, or no probe",
    ),
    PanelSpec(
        "Failures of the probe",
        {
            "{{reason}}": any_or_zero(
                f"sum by (reason) (rate({selector('matinee_probe_failures_total', where=PLACE)}[$__rate_interval]))", _ROUNDS
            )
        },
        "Calls a second that failed.",
        "reqps",
        "number",
        5,
        "no probe",
    ),
)

_SYNC = (
    PanelSpec(
        "Last sync",
        {"": f"time() - max ({selector('matinee_sync_last_success_timestamp_seconds', where=PLACE)})"},
        "Since the last round of `matinee sync` that succeeded.",
        "s",
        "number",
        6,
        "no sync, or no whole round yet",
    ),
    PanelSpec(
        "Items by round",
        {"{{change}}": f"sum by (change) (increase({selector('matinee_sync_items_total', where=PLACE)}[$__rate_interval]))"},
        "What syncs wrote, deleted, left unchanged and rejected.",
        width=12,
        none="no sync",
    ),
    PanelSpec(
        "Failed rounds",
        {"{{reason}}": f"sum by (reason) (increase({selector('matinee_sync_failures_total', where=PLACE)}[$__rate_interval]))"},
        "By the error's code; each is tried again.",
        width=6,
        none="no sync, or no failure",
    ),
)

_INDEX = (
    PanelSpec(
        "Version in use",
        {"": f"count by (catalogue, version, fingerprint) ({selector('ray_matinee_index_info')} == 1)"},
        "Which index version Retrievers answer from.",
        kind="table",
        width=12,
    ),
    PanelSpec(
        "Items",
        {"{{catalogue}}": f"max by (catalogue) ({selector('ray_matinee_index_items')})"},
        "In the version that is served, when it was opened; `/v1/info` counts what was written since.",
        kind="number",
        width=6,
    ),
    PanelSpec(
        "Ingest under way",
        {
            "{{catalogue}}: written": f"max by (catalogue) ({selector('ray_matinee_index_build_items')})",
            "{{catalogue}}: of": f"max by (catalogue) ({selector('ray_matinee_index_build_expected_items')})",
        },
        "Items that the ingest has written, and items of its source. 0 while none runs.",
        kind="number",
        width=6,
    ),
    PanelSpec("Age", {"": f"time() - {_BUILT}"}, "Since the version was built.", "s", "number", 6),
    PanelSpec(
        "Index answers",
        {"{{pod}}": f"min by (pod) ({selector('ray_matinee_index_up')})"},
        "1: the Retriever on that pod gets answers.",
        top=1,
    ),
    PanelSpec(
        "Errors of the index",
        {"{{reason}}": any_or_zero(rate("ray_matinee_index_errors_total", "reason"), _REQUESTS)},
        "Calls a second that failed.",
        "reqps",
    ),
    PanelSpec(
        "Age over time",
        {"as the probe sees it": selector("matinee_probe_index_age_seconds", where=PLACE), "as built": f"time() - {_BUILT}"},
        "Freshness.",
        "s",
    ),
    PanelSpec("Retrieval", quantiles("ray_matinee_stage_ms", "stage", 'stage="retrieve"'), "Time of the stage, waiting included.", "ms"),
    PanelSpec(
        "Calls",
        quantiles("ray_serve_deployment_processing_latency_ms", "deployment", where=PART),
        "Time of a call in a replica, by deployment; choose Retriever at the top.",
        "ms",
    ),
    PanelSpec(
        "Items in an answer",
        quantiles("ray_matinee_results", "endpoint"),
        "Between the bounds 1, 2, 5, 10 ...: fewer than were asked for, where filters leave no more over.",
    ),
    PanelSpec(
        "Events",
        {
            "{{kind}}": any_or_zero(rate("ray_matinee_events_total", "kind"), _REQUESTS),
            "dropped: {{reason}}": any_or_zero(rate("ray_matinee_events_dropped_total", "reason"), _REQUESTS),
        },
        "Impressions and feedback a second; only where events.uri is set.",
    ),
)

ROWS = {"What searches find": _RECALL, "The probe": _PROBE, "The sync": _SYNC, "The index": _INDEX}
