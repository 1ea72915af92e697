"""Every metric that Matinee exports: the replicas', which Ray scrapes on each node's metrics port, and the probe's own.

`make generate` writes the tables of docs/observability.md from here, and a test compares these with a real scrape. No ids, texts or keys
ever become labels.
"""

from serve.telemetry.declare import MetricSet, counter, gauge, histogram, specs

_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics(MetricSet):
    """The metrics of a replica."""

    prefix = "ray_"

    @counter("matinee_requests")
    def requests(self, *, endpoint: str, outcome: str, catalogue: str) -> None:
        """HTTP requests, by endpoint, outcome (the error's code, or ok) and catalogue (none: of no known one)"""

    @histogram("matinee_request_ms", _MS)
    def latency(self, *, endpoint: str) -> None:
        """Time from a request's arrival at the gateway to its answer, ms"""

    @histogram("matinee_stage_ms", _MS)
    def stage(self, *, stage: str) -> None:
        """Time of one stage of a request, ms: enhance, embed or retrieve, waiting included"""

    @counter("matinee_degraded")
    def degraded(self, *, part: str, reason: str) -> None:
        """Answers given without a part, by the error's code: deadline, overloaded, unavailable or model"""

    @counter("matinee_refused")
    def refused(self) -> None:
        """Requests refused at once, because too many were under way or waited in a queue behind"""

    @counter("matinee_cache")
    def cache(self, *, cache: str, result: str) -> None:
        """Look-ups in the gateway's caches of embeddings and descriptions"""

    @histogram("matinee_hop_batch", _SIZES)
    def hop_batch(self, *, part: str) -> None:
        """Requests that travelled together in one call to a deployment"""

    @histogram("matinee_queue_wait_ms", _MS)
    def queue_wait(self, *, part: str) -> None:
        """Time that a call waits in the queues of gateway and part, ms; the way between them is not in it"""

    @histogram("matinee_model_batch", _SIZES)
    def model_batch(self, *, part: str) -> None:
        """Texts or items that a model handled at once"""

    @histogram("matinee_results", (0.5, 1, 2, 5, 10, 20, 50, 100))
    def results(self, *, endpoint: str) -> None:
        """Items in an answer"""

    @counter("matinee_encoded_tokens")
    def encoded_tokens(self) -> None:
        """Tokens that the embedder read"""

    @counter("matinee_generated_tokens")
    def generated_tokens(self) -> None:
        """Tokens that the enhancer wrote"""

    @counter("matinee_description_violations")
    def violations(self) -> None:
        """Statements in descriptions that the metadata does not bear out"""

    @counter("matinee_enhancer_server_failures")
    def enhancer_server_failures(self, *, reason: str) -> None:
        """Requests that the enhancer's server did not answer well: unreachable, timeout, refused, nonsense or rejected"""

    @gauge("matinee_model_info")
    def model_info(self, *, part: str, model: str, precision: str, fingerprint: str) -> None:
        """1 for the model that a replica runs, 0 for those it ran before"""

    @gauge("matinee_model_load_seconds")
    def model_load_s(self, *, part: str) -> None:
        """Time that the last model load and warm-up took, s"""

    @counter("matinee_model_swap_failures")
    def model_swap_failures(self, *, part: str) -> None:
        """Model updates that failed and left the old model in place"""

    @gauge("matinee_gpu_memory_bytes")
    def gpu_memory(self, *, part: str) -> None:
        """GPU memory that a part's process has reserved, where there is a GPU"""

    @gauge("matinee_index_info")
    def index_info(self, *, catalogue: str, version: str, fingerprint: str) -> None:
        """1 for the index version that a Retriever answers from, 0 for those before"""

    @gauge("matinee_index_items")
    def index_items(self, *, catalogue: str) -> None:
        """Items in the current index version when it was opened"""

    @gauge("matinee_index_built_timestamp_seconds")
    def index_built(self, *, catalogue: str) -> None:
        """When the current index version was made, seconds since 1970"""

    @gauge("matinee_index_build_items")
    def index_build_items(self, *, catalogue: str) -> None:
        """Items that the ingest under way has written, as it noted itself; 0 while none runs"""

    @gauge("matinee_index_build_expected_items")
    def index_build_expected(self, *, catalogue: str) -> None:
        """Items of the source of the ingest under way; 0 while none runs"""

    @gauge("matinee_index_up")
    def index_up(self, *, catalogue: str) -> None:
        """1 while the index store answers, 0 since a call or the check each second failed"""

    @counter("matinee_index_errors")
    def index_errors(self, *, reason: str, catalogue: str) -> None:
        """Calls that the index did not answer, by the error's code"""

    @gauge("matinee_clock_skew_seconds")
    def clock_skew_s(self, *, part: str) -> None:
        """How far the clock of a part's machine is ahead of the gateway's, at least, s; negative is behind"""

    @gauge("matinee_in_flight_requests")
    def in_flight(self) -> None:
        """Requests that a gateway has let in and not yet answered"""

    @counter("matinee_events")
    def events(self, *, kind: str) -> None:
        """Events taken for the event log: impressions and feedback"""

    @counter("matinee_events_dropped")
    def events_dropped(self, *, reason: str) -> None:
        """Events that were lost: the queue was full, or the log could not be written at the end"""


class ProbeMetrics(MetricSet):
    """The metrics of the recall probe."""

    @gauge("matinee_probe_recall_at_10")
    def recall_at_10(self, *, set: str, mode: str) -> None:
        """Part of the labelled items among the first ten, mean over queries"""

    @gauge("matinee_probe_ndcg_at_10")
    def ndcg_at_10(self, *, set: str, mode: str) -> None:
        """NDCG of the first ten against the labels, mean over queries"""

    @gauge("matinee_probe_ann_recall_at_10")
    def ann_recall_at_10(self, *, filtered: str) -> None:
        """Part of the exact first ten that the approximate index finds"""

    @gauge("matinee_probe_queries")
    def queries(self, *, set: str) -> None:
        """Labelled queries of a round; set none and 0 where there is no query set"""

    @gauge("matinee_probe_labelled_items")
    def labelled_items(self, *, set: str) -> None:
        """Labelled items of a set"""

    @gauge("matinee_probe_unknown_items")
    def unknown_items(self, *, set: str) -> None:
        """Labelled items that are not in the index, and are left out"""

    @gauge("matinee_probe_up")
    def up(self) -> None:
        """1: the server reported its state at the start of the last round; 0: it did not"""

    @gauge("matinee_probe_index_age_seconds")
    def index_age_seconds(self) -> None:
        """Time since the current index version was made, s"""

    @gauge("matinee_probe_last_success_timestamp_seconds")
    def last_success_timestamp_seconds(self) -> None:
        """When the last round ended that made all its figures"""

    @histogram("matinee_probe_request_seconds", _SECONDS)
    def request_seconds(self, *, endpoint: str) -> None:
        """Time of a request as the probe sees it, failed ones included, s"""

    @counter("matinee_probe_failures")
    def failures(self, *, reason: str) -> None:
        """Requests that failed, by the error's code, or timeout, unreachable"""

    @counter("matinee_probe_rounds")
    def rounds(self) -> None:
        """Rounds, failed ones included"""


PROBE_METRICS = specs(ProbeMetrics)
