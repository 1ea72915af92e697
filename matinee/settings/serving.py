"""The settings of what stands around the models and the index: the HTTP side, its keys, events, traces, and the recall probe."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, SecretStr, model_validator

from matinee.settings.base import Deployment, Part, Seconds

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class KeySettings(Part):
    """One bearer key: its name (for logs), the sha256 of the key in hex, and what it may do."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = ("read",)


class ServingSettings(Part):
    """The HTTP side: address, limits and deadlines. `fast` turns Serve's throughput mode on."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    fast: bool = False
    haproxy: Annotated[
        bool, Field(description="HAProxy before the replicas, on a cluster only: it and they answer on every interface without a token")
    ] = False
    deadline_s: Seconds = 15
    drain_s: Seconds = 30
    retry_after_s: Annotated[int, Field(ge=1, le=300)] = 1
    max_body_bytes: Annotated[int, Field(ge=1024, le=100_000_000)] = 1_000_000
    max_text_chars: Annotated[int, Field(ge=16, le=100_000)] = 4000
    keys: tuple[KeySettings, ...] = ()
    metrics: Annotated[bool, Field(description="false records none of Matinee's own metrics; Ray's stay")] = True
    log_format: Annotated[Literal["text", "json"], Field(description="json: one object a line")] = "text"
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="INFO: a line for each request")] = "WARNING"
    log_texts: Annotated[bool, Field(description="what users wrote, in the request lines and in the events of searches")] = False
    deployment: Deployment = Deployment(max_ongoing_requests=256, target_ongoing_requests=64, max_queued_requests=512)


class ProbeSettings(Part):
    """The recall probe (`python -m serve.probe`): whom it asks, with which queries, how often, and where it exports.

    `url` null is the server that runs here. `key` needs the scope admin, for exact searches; read is enough for the rest. `queries` is a
    BEIR folder, or a folder of them; null is the shipped set where the catalogue is `demo`, and no labelled recall elsewhere.
    """

    url: str | None = None
    key: SecretStr | None = None
    queries: Path | None = None
    split: Annotated[str, Field(pattern=r"^\w{1,40}$")] = "test"
    max_queries: Annotated[int, Field(ge=1, le=10_000, description="asked of one set, always the same ones")] = 200
    ann_queries: Annotated[int, Field(ge=0, le=1000, description="asked twice, exact and not, where the index is approximate; 0: none")] = (
        30
    )
    interval_s: Seconds = 300
    deadline_s: Annotated[float, Field(gt=0, le=86_400, description="of one request; a round has interval_s")] = 10
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9464

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.deadline_s >= self.interval_s:
            raise ValueError(
                f"deadline_s {self.deadline_s:g} is not below interval_s {self.interval_s:g}: one slow request would take a whole round"
            )
        return self


class EventSettings(Part):
    """The event log: what was answered and what users did with it, as JSONL parts under `uri` (a folder, s3://, gs://); null is off."""

    uri: str | None = None
    flush_s: Annotated[float, Field(gt=0, le=3600, description="longest that an event waits before it is written")] = 5
    flush_events: Annotated[int, Field(ge=1, le=100_000, description="events of a full part")] = 1000
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000, description="events that wait at each gateway; more are refused")] = 10_000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.flush_events > self.max_waiting:
            raise ValueError(f"flush_events {self.flush_events} is above max_waiting {self.max_waiting}: a part could never fill")
        return self


class TracingSettings(Part):
    """OpenTelemetry spans, sent by OTLP over HTTP. Headers, such as a collector's key, are read from `OTEL_EXPORTER_OTLP_HEADERS`."""

    endpoint: Annotated[
        str | None, Field(pattern=r"^https?://[^\s?#@]+$", description="base URL, such as http://collector:4318; null is off")
    ] = None
    sample_ratio: Annotated[float, Field(ge=0, le=1, description="of the requests that bring no sampled traceparent")] = 1.0
