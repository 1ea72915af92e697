"""The dashboard "Models": which models run, how they batch, how much they read and write, and what it takes."""

from observability.panels import PART, PLACE, View, of, quantiles, rate, share, zero

UID, TITLE = "matinee-models", "Matinee / Models"
SAYS = "Embedder and enhancer: what is loaded, batches, tokens, caches, waiting, memory."

_LOADED = f"sum by (part) ({of('ray_matinee_model_info')})"
_HIT = 'result="hit"'
_LOOKED_UP = rate("ray_matinee_cache_total", "cache")

_WHICH = (
    View(
        "Models in use",
        {"": f"count by (part, model, precision, fingerprint) ({of('ray_matinee_model_info')} == 1)"},
        "What replicas run now. Two fingerprints of a part: a roll-over is under way.",
        kind="table",
        width=16,
    ),
    View(
        "Swaps that failed",
        {"{{part}}": zero(f"sum by (part) ({of('ray_matinee_model_swap_failures_total')})", _LOADED)},
        "Model updates that left the old model in place, since the replicas started.",
    ),
    View("Load time", {"{{part}}": f"max by (part) ({of('ray_matinee_model_load_seconds')})"}, "Of the last load and warm-up.", "s"),
    View(
        "Replica start, p95",
        {
            "{{deployment}}": "histogram_quantile(0.95, sum by (le, deployment) "
            f"({of('ray_serve_replica_startup_latency_ms_bucket', of=PART)}))"
        },
        "From creation to ready, over all starts; a model may load after that.",
        "ms",
    ),
    View(
        "GPU memory of models",
        {"{{part}}": f"sum by (part) ({of('ray_matinee_gpu_memory_bytes')})"},
        "What the replicas hold. Only where there are GPUs.",
        "bytes",
        none="no GPU",
    ),
)

_WORK = (
    View(
        "Texts or items in a batch",
        quantiles("ray_matinee_model_batch", "part"),
        "That a model handled at once, between the bounds 1, 2, 4, 8 ...: a batch of one shows as up to 1.",
    ),
    View(
        "Hops that carry several",
        {"{{part}}": f"1 - {share('ray_matinee_hop_batch', 'part', '1.0')}"},
        "Part of the calls to a part in which more than one request travelled: none on an idle server.",
        "percentunit",
    ),
    View(
        "Wait before the model",
        quantiles("ray_matinee_queue_wait_ms", "part"),
        "From the gateway's call to the moment when the part takes it up.",
        "ms",
    ),
    View(
        "Calls",
        quantiles("ray_serve_deployment_processing_latency_ms", "deployment", of_=PART),
        "Time of a call in a replica, by deployment; a call carries a batch.",
        "ms",
    ),
    View("Read by the embedder", {"tokens": rate("ray_matinee_encoded_tokens_total")}, "Tokens a second.", "short"),
    View("Written by the enhancer", {"tokens": rate("ray_matinee_generated_tokens_total")}, "Tokens a second.", "short"),
    View(
        "Cache hits",
        {
            "{{cache}}": f"({zero(rate('ray_matinee_cache_total', 'cache', _HIT), _LOOKED_UP)}) / {_LOOKED_UP}",
        },
        "Part of the look-ups in the gateways' caches that found something.",
        "percentunit",
        top=1,
    ),
    View(
        "Statements without ground",
        {"": zero(rate("ray_matinee_description_violations_total"), rate("ray_matinee_generated_tokens_total"))},
        "Statements a second in descriptions that the metadata does not bear out.",
    ),
    View(
        "GPUs of nodes",
        {"{{pod}} {{GpuIndex}}": of("ray_node_gpus_utilization", of=PLACE)},
        "Time in which the GPU worked. Only where there are GPUs.",
        "percent",
        none="no GPU",
        top=100,
    ),
)

ROWS = {"Loaded": _WHICH, "Work": _WORK}
