"""The settings of what stands around the models and the index: the HTTP side, its keys, events, traces, and the recall probe."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from matinee.patterns import SHA256, pattern
from matinee.settings.base import Deployment, HttpUrl, Part, Seconds, StoreUri, Url

Scope = Literal["read", "feedback", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ANY_CATALOGUE = "*"
KEY_SCOPE = pattern(
    rf"^(([a-z][a-z0-9_-]{{0,62}}|\*):)?({'|'.join(SCOPES)})$",
    f"one of {', '.join(SCOPES)}, also for one catalogue or for all: films:read, *:read",
)
KeyScope = Annotated[str, StringConstraints(pattern=KEY_SCOPE)]
"""A scope of a key: `read` is for the default catalogue, `films:read` for the catalogue films, `*:read` for all."""


class KeySettings(Part):
    """One bearer key."""

    name: str = Field(description="the key's name in logs")
    sha256: str = Field(pattern=SHA256, description="sha256 of the key in hex")
    scopes: tuple[KeyScope, ...] = Field(
        ("read",),
        min_length=1,
        description="what the key may do: read, feedback, write in the default catalogue, admin everywhere; `films:read` is for the "
        "catalogue films, `*:read` for all",
    )

    def allows(self, scope: Scope, catalogue: str | None, *, default: bool) -> bool:
        """Whether the key may do `scope` in a catalogue. None that is not the default one: in the server as a whole."""
        for held in self.scopes:
            where, _, what = held.rpartition(":")
            if what not in (scope, "admin"):
                continue
            everywhere = what == "admin" and where in ("", ANY_CATALOGUE)
            here = default if not where else where == catalogue or (where == ANY_CATALOGUE and (default or catalogue is not None))
            if everywhere or here:
                return True
        return False


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"not an address or a network such as 10.0.0.0/8: {error}") from None


def _source_prefix(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http", "s3", "gs", "az") or not parts.netloc or "@" in parts.netloc or not parts.path.endswith("/"):
        raise ValueError("not a prefix such as s3://shop/exports/ or https://example.org/feeds/: it ends with a slash, and names no user")
    return text


Network = Annotated[str, AfterValidator(_network)]
SourcePrefix = Annotated[str, AfterValidator(_source_prefix)]
_HOST = pattern(
    r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?$",
    "a host name without scheme and port, such as api.example.org or *.example.org",
)
Host = Annotated[str, StringConstraints(pattern=_HOST)]


class LimitSettings(Part):
    """What one client may take of a gateway, and how large headers may be. Each gateway counts by itself."""

    header_s: Seconds = Field(5, description="seconds that the headers of a request may take to arrive, with `serving.placement` process")
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=86_400,
        description="seconds that a connection stays open without a request, with `serving.placement` process. More than the idle timeout "
        "of a proxy before the server: a request that arrives while its connection is being closed gets no answer",
    )
    body_s: Seconds = Field(5, description="seconds that the body of a request may take to arrive")
    share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="largest share of a gateway's concurrent requests (serving.deployment.max_ongoing_requests) that one key or one "
        "client address may have; 1 is no limit",
    )
    connections: int = Field(
        4096,
        ge=8,
        le=1_000_000,
        description="most open connections, with `serving.placement` process; one client address gets its share of them",
    )
    key_rate: float = Field(0, ge=0, description="requests a second that each key may send; 0 is no limit")
    address_rate: float = Field(0, ge=0, description="requests a second that each client address may send; 0 is no limit")
    header_count: int = Field(100, ge=10, le=1000, description="most headers of a request")
    header_bytes: int = Field(16_384, ge=1024, le=1_000_000, description="most bytes of a request's headers and its URL together")


class BulkSettings(Part):
    """Requests of many parts, such as a batch of recommendations: how many at once, and how long."""

    at_once: int = Field(8, ge=1, le=1000, description="bulk requests that a gateway handles at once; further ones get 503")
    deadline_s: Seconds = Field(60, description="seconds that a batch of recommendations may take, and a chunk of an upload")
    rate: int = Field(1000, ge=1, le=1_000_000_000, description="lowest rate of a streamed upload, in bytes a second")
    stall_s: Seconds = Field(30, description="seconds that a streamed upload may fall behind this rate")


class ImportSettings(Part):
    """Import jobs (`POST /v1/imports`), whose lines and state lie beside the index."""

    open: int = Field(4, ge=1, le=100, description="imports that may be open at once: one is worked on, the others wait")
    max_bytes: int = Field(1_000_000_000, ge=1024, description="most bytes of one import's lines, once they are decompressed")
    sources: tuple[SourcePrefix, ...] = Field(
        (), description="URIs that an import may read begin with one of these, such as s3://shop/exports/; https, http, s3, gs or az"
    )


class ServingSettings(Part):
    """The HTTP API: address, limits, deadlines, keys and logs."""

    host: str = Field("127.0.0.1", description="address that the API binds")
    port: int = Field(8000, ge=0, le=65_535, description="port of the API; 0 takes a free one")
    placement: Literal["auto", "process", "ray"] = Field(
        "auto",
        description="where `python -m serve` runs the parts: process is one process, ray is a Ray Serve deployment each; auto takes "
        "process where one replica of each part is asked for. A cluster always uses Ray Serve",
    )
    fast: bool = Field(False, description="Ray Serve's throughput mode (RAY_SERVE_THROUGHPUT_OPTIMIZED): more requests per second")
    haproxy: bool = Field(
        False,
        description="HAProxy before the replicas, on a cluster only, where the chart sets it: "
        "both then listen on every interface and ask for no token",
    )
    deadline_s: Seconds = Field(15, description="seconds that a request may take")
    drain_s: Seconds = Field(30, description="seconds that requests under way get when a replica stops; at least deadline_s")
    max_wait_s: Seconds = Field(
        2,
        description="longest time in seconds that a search or a recommendation may wait for one part, in the gateway's queue and in the "
        "part's own. It gets 503 with Retry-After if its expected or its actual wait is longer. A queue of eight requests or fewer "
        "rejects none. For the enhancer it is `enhancer.deadline_s`, and the request goes on without it",
    )
    retry_after_s: int = Field(1, ge=1, le=300, description="least seconds in the Retry-After header of a 503")
    max_body_bytes: int = Field(1_000_000, ge=1024, le=100_000_000, description="largest request body in bytes")
    max_text_chars: int = Field(4000, ge=16, le=100_000, description="longest query text in characters")
    keys: tuple[KeySettings, ...] = Field(
        (),
        description="API keys: name, sha256, scopes (read, feedback, write, admin; `films:read` is for the catalogue films); "
        "`python -m serve key NAME --scope read` prints one",
    )
    hosts: tuple[Host, ...] = Field(
        (), description="host names that a server without keys answers to, besides localhost and addresses; *.example.org is all below"
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-For names the client; others can't name one"
    )
    limits: LimitSettings = LimitSettings()
    bulk: BulkSettings = BulkSettings()
    imports: ImportSettings = ImportSettings()
    metrics: bool = Field(
        True, description="record Matinee's own metrics; false leaves Ray's. One process exports them with `--metrics-port` only"
    )
    log_format: Literal["text", "json"] = Field("text", description="form of log lines; json is one object a line")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("WARNING", description="INFO logs a line for each request")
    log_texts: bool = Field(False, description="put users' query texts into request lines and search events")
    deployment: Deployment = Deployment(max_ongoing_requests=256, target_ongoing_requests=64, max_queued_requests=512)


_SPLIT = pattern(r"^\w{1,40}$", "a word of up to 40 letters, digits and _")


class ProbeSettings(Part):
    """The recall probe (`python -m serve.probe`): which server it asks, with which queries, how often, and where it exports."""

    url: Url | None = Field(
        None, description="URL of the API, without a user or password; null is the server that runs here, or this release's"
    )
    key: SecretStr | None = Field(None, description="API key; scope admin for exact searches, read for the rest")
    queries: Path | None = Field(
        None,
        description="a BEIR folder, or a folder of them; null is the shipped set for the catalogue demo; other catalogues then have none",
    )
    split: str = Field("test", pattern=_SPLIT, description="which labels of a set: qrels/SPLIT.tsv")
    max_queries: int = Field(200, ge=1, le=10_000, description="queries asked of one set in a round, always the same ones")
    ann_queries: int = Field(
        30, ge=0, le=1000, description="queries asked both exactly and approximately, where the index is approximate; 0 asks none"
    )
    interval_s: Seconds = Field(300, description="seconds between the starts of two rounds, and the longest a round may take")
    deadline_s: float = Field(10, gt=0, le=86_400, description="seconds of one request; below interval_s")
    concurrency: int = Field(2, ge=1, le=64, description="requests under way at once")
    metrics_host: str = Field("127.0.0.1", description="address of the probe's metrics")
    metrics_port: int = Field(9464, ge=0, le=65_535, description="port of the probe's metrics; 0 takes a free one")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.deadline_s >= self.interval_s:
            raise ValueError(
                f"deadline_s {self.deadline_s:g} is not below interval_s {self.interval_s:g}: one slow request would take a whole round"
            )
        return self


class EventSettings(Part):
    """The event log: what was answered, and what users did with it."""

    uri: StoreUri | None = Field(
        None,
        description="where JSONL parts are written: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH, without credentials; null is off",
    )
    flush_s: float = Field(5, gt=0, le=3600, description="longest seconds that an event waits before it is written")
    flush_events: int = Field(1000, ge=1, le=100_000, description="events of a full part; at most max_waiting")
    max_waiting: int = Field(10_000, ge=1, le=1_000_000, description="events that wait at each gateway; further ones are refused")
    keep_days: int = Field(365, ge=0, le=36_500, description="days that events are kept; older days are deleted. 0 keeps them")
    quota: int = Field(
        6000,
        ge=0,
        description="events of feedback that each key, or else each client address, may send a minute to each gateway; 0 is no limit",
    )
    token_s: float = Field(86_400, ge=60, le=2_592_000, description="seconds that the feedback_token of an answer is valid")
    signing_keys: Path | None = Field(
        None,
        description="file of the keys that sign these tokens, one a line: the first signs, all verify; null is `feedback.keys` in the home "
        "folder, made at the first start",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.flush_events > self.max_waiting:
            raise ValueError(f"flush_events {self.flush_events} is above max_waiting {self.max_waiting}: a part could never fill")
        return self


class TracingSettings(Part):
    """OpenTelemetry spans, sent by OTLP over HTTP. Headers, such as a collector's key, are read from `OTEL_EXPORTER_OTLP_HEADERS`."""

    endpoint: HttpUrl | None = Field(None, description="base URL of the collector, such as http://collector:4318; null is off")
    sample_ratio: float = Field(1.0, ge=0, le=1, description="share of requests that is traced, where they bring no sampled traceparent")
