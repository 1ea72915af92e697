"""Every setting of Matinee: one frozen, typed tree that refuses unknown keys and contradictions.

Where its values come from: `matinee.settings.load`. Does not start, load or connect to anything.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from matinee import languages
from matinee.errors import SettingsError
from matinee.patterns import pattern
from matinee.settings.base import Part, StoreUri
from matinee.settings.index import IndexSettings
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.serving import EventSettings, ProbeSettings, ServingSettings, TracingSettings

Mode = Literal["dense", "sparse", "hybrid"]


def _text_language(name: str) -> str:
    if name not in (known := languages.names()):
        raise ValueError(f"there are no sentences in {name!r}: use {' or '.join(known)}, or add its file to matinee/languages")
    return name


TextLanguage = Annotated[str, AfterValidator(_text_language)]

PREFIX = "MATINEE_"
CATALOGUE_NAME = pattern(
    r"^[a-z][a-z0-9_-]{0,62}$", "lower-case letters, digits, - and _, beginning with a letter, up to 63 characters: games, or de-books"
)


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
    catalogue: str = Field(
        "demo", pattern=CATALOGUE_NAME, description="name of the catalogue that is ingested, and of the default one that is served"
    )
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
    def indexes_dir(self) -> Path:
        """The folder of all catalogues on the embedded engine."""
        return self.home_dir / "index"

    @property
    def index_dir(self) -> Path:
        return self.indexes_dir / self.catalogue

    @property
    def server_file(self) -> Path:
        return self.home_dir / "server.json"
