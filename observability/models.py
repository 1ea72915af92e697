"""The dashboard "Models": which models run, how they batch, how much they read and write, and what it takes."""

from observability.overview import GPUS
from observability.panels import PART, PanelSpec, or_zero, quantiles, rate, selector, share

UID, TITLE = "matinee-models", "Matinee / Models"
DESCRIPTION = "Embedder and enhancer: what is loaded, batches, tokens, caches, waiting, memory."

_LOADED = f"sum by (part) ({selector('ray_matinee_model_info')})"
_HIT = 'result="hit"'
_LOOKED_UP = rate("ray_matinee_cache_total", "cache")

_WHICH = (
    PanelSpec(
        "Models in use",
        {"": f"count by (part, model, precision, fingerprint) ({selector('ray_matinee_model_info')} == 1)"},
        "What replicas run now. Two fingerprints of a part: a roll-over is under way.",
        kind="table",
        width=16,
    ),
    PanelSpec(
        "Swaps that failed",
        {"{{part}}": or_zero(f"sum by (part) ({selector('ray_matinee_model_swap_failures_total')})", _LOADED)},
        "Model updates that left the old model in place, since the replicas started.",
    ),
    PanelSpec(
        "Load time", {"{{part}}": f"max by (part) ({selector('ray_matinee_model_load_seconds')})"}, "Of the last load and warm-up.", "s"
    ),
    PanelSpec(
        "Replica start, p95",
        {
            "{{deployment}}": "histogram_quantile(0.95, sum by (le, deployment) "
            f"({selector('ray_serve_replica_startup_latency_ms_bucket', where=PART)}))"
        },
        "From creation to ready, over all starts; a model may load after that.",
        "ms",
    ),
    PanelSpec(
        "GPU memory of models",
        {"{{part}}": f"sum by (part) ({selector('ray_matinee_gpu_memory_bytes')})"},
        "What the replicas hold. Only where there are GPUs.",
        "bytes",
        none="no GPU",
    ),
)

_WORK = (
    PanelSpec(
        "Texts or items in a batch",
        quantiles("ray_matinee_model_batch", "part"),
        "That a model handled at once, between the bounds 1, 2, 4, 8 ...: a batch of one shows as up to 1.",
    ),
    PanelSpec(
        "Hops that carry several",
        {"{{part}}": f"1 - {share('ray_matinee_hop_batch', 'part', '1.0')}"},
        "Part of the calls to a part in which more than one request travelled: none on an idle server.",
        "percentunit",
    ),
    PanelSpec(
        "Wait before the model",
        quantiles("ray_matinee_queue_wait_ms", "part"),
        "From the gateway's call to the moment when the part takes it up.",
        "ms",
    ),
    PanelSpec(
        "Calls",
        quantiles("ray_serve_deployment_processing_latency_ms", "deployment", where=PART),
        "Time of a call in a replica, by deployment; a call carries a batch.",
        "ms",
    ),
    PanelSpec("Read by the embedder", {"tokens": rate("ray_matinee_encoded_tokens_total")}, "Tokens a second.", "short"),
    PanelSpec("Written by the enhancer", {"tokens": rate("ray_matinee_generated_tokens_total")}, "Tokens a second.", "short"),
    PanelSpec(
        "Cache hits",
        {
            "{{cache}}": f"({or_zero(rate('ray_matinee_cache_total', 'cache', _HIT), _LOOKED_UP)}) / {_LOOKED_UP}",
        },
        "Part of the look-ups in the gateways' caches that found something.",
        "percentunit",
        top=1,
    ),
    PanelSpec(
        "Statements without ground",
        {"": or_zero(rate("ray_matinee_description_violations_total"), rate("ray_matinee_generated_tokens_total"))},
        "Statements a second in descriptions that the metadata does not bear out.",
    ),
    GPUS,
)

ROWS = {"Loaded": _WHICH, "Work": _WORK}
