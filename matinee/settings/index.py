"""The settings of the index: its engine, the text that is embedded, and the facts beside it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from matinee.settings.base import Deployment, Part, Positive, Seconds, Share, Url

_SERVER_ONLY = (
    "shards",
    "write_consistency",
    "read_consistency",
    "read_fan_out",
    "strict",
    "defer_indexing",
    "indexing_wait_s",
    "collection",
)
_GRAPH_ONLY = ("m", "ef_construct", "quantization", "oversampling")

Recipe = Literal["raw", "enhanced", "both"]
Quantization = Literal["none", "scalar", "binary", "product"]


class FactWeights(Part):
    """How much each fact counts beside the text in item-to-item similarity. All 0: the text alone decides."""

    year: Share = Field(0.05, description="weight of similar years")
    votes: Share = Field(0.1, description="weight of similar vote counts, or of similar popularity")
    genres: Share = Field(0.1, description="weight of genres in common")
    language: Share = Field(0.2, description="weight of the same language")

    def any(self) -> bool:
        return any((self.year, self.votes, self.genres, self.language))


class CatalogueSettings(Part):
    """Catalogues beside the default one (`catalogue`), in the same server."""

    open: Positive = Field(
        16, description="catalogues beside the default one that a Retriever keeps open at once; the least recently used one is closed"
    )
    idle_s: Seconds = Field(600, description="seconds without a request after which a catalogue beside the default one is closed")
    most: int = Field(200, ge=1, le=10_000, description="catalogues that may be created beside the default one")
    share_below: int = Field(
        10_000,
        ge=0,
        description="an index version of a created catalogue with fewer items shares a collection with others of its encoder (qdrant); 0: "
        "each has its own",
    )


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
    write_consistency: Positive = Field(
        1,
        description="copies that must have a write before it counts (qdrant); more survive a lost node, and refuse writes without it",
    )
    read_consistency: Literal["one", "majority", "quorum", "all"] = Field(
        "one",
        description="copies that answer a read (qdrant); one: the quickest; majority: what half of them and one more have; "
        "quorum: what most of them have; all: what all have",
    )
    read_fan_out: int | None = Field(
        None, ge=0, le=16, description="further copies that a read asks at once, for the first answer (qdrant); null leaves it to Qdrant"
    )
    strict: bool = Field(
        True, description="let the server refuse a filter on a field without an index, which would read all items (qdrant)"
    )
    defer_indexing: bool = Field(
        True, description="build the HNSW index of a version when its items are written, not while they are (qdrant)"
    )
    indexing_wait_s: float = Field(
        86_400, gt=0, le=864_000, description="seconds that a build waits for that index before it fails (qdrant): the old version serves"
    )
    exact_facets_below: Positive = Field(
        200_000, description="versions with fewer items count values exactly; larger ones may estimate, and answers say so"
    )
    collection: Literal["own", "shared"] = Field(
        "own",
        description="where index versions lie (qdrant); own: each in a collection; shared: small ones together (catalogues.share_below). "
        "Those of created catalogues are shared whatever this says",
    )
    on_disk: bool = Field(False, description="keep vectors on disk instead of in memory")
    payload: Literal["auto", "memory", "disk"] = Field(
        "auto", description="where items are kept; auto is where on_disk puts vectors (qdrant), or on disk (edge)"
    )
    m: int = Field(16, ge=4, le=128, description="links of an item in the HNSW index: more lose less and take more memory")
    ef_construct: int = Field(
        100, ge=10, le=1000, description="candidates for these links while the index is built: more lose less and take longer"
    )
    quantization: Quantization = Field(
        "none",
        description="small copies of dense vectors, held in memory, that a search reads first: 1 byte a number (scalar), 1 bit (binary), "
        "or a sixteenth of the vector (product); the best candidates are ranked again by the whole vectors. A new version gets them",
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
    catalogues: CatalogueSettings = CatalogueSettings()
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
        if self.engine == "edge" and (changed := self._find_changed(*_SERVER_ONLY)):
            raise ValueError(f"engine 'edge' does not use {', '.join(changed)}: remove it, or use engine 'qdrant'")
        if self.engine == "edge" and not self.graph_from and (changed := self._find_changed(*_GRAPH_ONLY)):
            raise ValueError(
                f"engine 'edge' scans unless it has a graph, and does not use {', '.join(changed)}: set graph_from, or remove it"
            )
        if self.write_consistency > self.replication_factor:
            raise ValueError(
                f"write_consistency is {self.write_consistency}, but there are {self.replication_factor} copies (replication_factor): "
                "no write could succeed"
            )
        if self.engine == "qdrant" and self.graph_from:
            raise ValueError("engine 'qdrant' does not use graph_from, because its server builds its own graph: remove graph_from")
        if self.engine == "edge" and self.ef and not self.graph_from:
            raise ValueError(f"ef is {self.ef}, but engine 'edge' scans unless it has a graph: set graph_from, or remove ef")
        return self

    def _find_changed(self, *names: str) -> list[str]:
        """The settings that have not their default."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
