"""The requests that this project sends to a server of its own, each with the type of its result. Does not send (`matinee.client.http`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NotRequired, TypedDict, TypeVar
from urllib.parse import quote

from matinee.index.registry import CatalogueReport
from matinee.items import Item, ItemFacts
from matinee.models.types import Kind
from matinee.recommend.results import DescribedItem, FacetEntry, RankedAnswer

Result_co = TypeVar("Result_co", covariant=True)

Body = Mapping[str, object]
Param = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Call(Generic[Result_co]):
    """A request whose response is a JSON object of the type `Result_co`.

    Parameters that are None are left out. `body` is sent as JSON, `lines` as NDJSON as they come (not by `AsyncClient`).
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    params: Mapping[str, Param] = field(default_factory=dict)
    body: Body | None = None
    lines: Iterable[bytes] | None = None


class EmbedderReport(TypedDict, total=False):
    """What an embedder says of itself; `trouble` alone where it can't be asked."""

    model: str
    precision: str
    dimension: int
    language: str | None
    fingerprint: str
    trouble: str | None


class IndexReport(TypedDict):
    """The version that answers."""

    version: str
    items: int
    created: str
    approximate: NotRequired[bool]
    attributes: dict[str, object]


class SearchReport(TypedDict):
    """How the server searches where a request does not say."""

    mode: str


class LimitsReport(TypedDict):
    """What a request may have."""

    body_bytes: int


class ServerInfo(TypedDict):
    """What runs, and what is degraded."""

    catalogue: str
    index: IndexReport | None
    building: NotRequired[bool]
    index_trouble: NotRequired[str | None]
    embedder: EmbedderReport
    enhancer: dict[str, object] | None
    search: SearchReport
    limits: LimitsReport


class EmbeddedTexts(TypedDict):
    """Vectors of texts, and the fingerprint of the encoder that made them."""

    fingerprint: str
    vectors: list[list[float]]


class StoredEntry(TypedDict):
    """An item as the index holds it; of a deleted one, its id and revision count alone."""

    id: str
    item: ItemFacts
    revision: int
    deleted: NotRequired[bool]
    asked: NotRequired[int]


class ItemPage(TypedDict):
    """A page of the catalogue; `cursor` is that of the next one."""

    items: list[StoredEntry]
    cursor: str | None


class FacetCounts(TypedDict):
    """Values for filters, most frequent first. `approximate`: their counts may be estimates."""

    count: int
    approximate: NotRequired[bool]
    facets: NotRequired[dict[str, list[FacetEntry]]]
    kind: list[FacetEntry]
    genres: list[FacetEntry]
    language: list[FacetEntry]


class CatalogueList(TypedDict):
    """The catalogues that the key may see, the default one first."""

    catalogues: list[CatalogueReport]


class DeletedCatalogue(TypedDict):
    """What was deleted."""

    name: str
    deleted: bool


CATALOGUES = "/v1/catalogues"


def catalogues() -> Call[CatalogueList]:
    return Call("GET", CATALOGUES)


def catalogue(name: str) -> Call[CatalogueReport]:
    return Call("GET", f"{CATALOGUES}/{quote(name, safe='')}")


def create_catalogue(body: Body) -> Call[CatalogueReport]:
    return Call("POST", CATALOGUES, body=body)


def change_catalogue(name: str, body: Body) -> Call[CatalogueReport]:
    return Call("PATCH", f"{CATALOGUES}/{quote(name, safe='')}", body=body)


def create_index(attributes: Body | None = None) -> Call[CatalogueReport]:
    return Call("POST", "/v1/index", body={"attributes": attributes})


def delete_catalogue(name: str) -> Call[DeletedCatalogue]:
    return Call("DELETE", f"{CATALOGUES}/{quote(name, safe='')}")


def info() -> Call[ServerInfo]:
    return Call("GET", "/v1/info")


def search(body: Body) -> Call[RankedAnswer]:
    return Call("POST", "/v1/search", body=body)


def recommend(body: Body) -> Call[RankedAnswer]:
    return Call("POST", "/v1/recommend", body=body)


def similar(id: str, k: int) -> Call[RankedAnswer]:
    return Call("GET", f"/v1/items/{quote(id, safe='')}/similar", {"k": k})


def describe(body: Body) -> Call[DescribedItem]:
    return Call("POST", "/v1/describe", body=body)


def describe_item(item: Item) -> Call[DescribedItem]:
    return describe({"item": item.model_dump(mode="json", exclude_defaults=True)})


def embed(texts: Sequence[str], kind: Kind) -> Call[EmbeddedTexts]:
    return Call("POST", "/v1/embed", body={"texts": [*texts], "kind": kind})


def item(id: str) -> Call[StoredEntry]:
    return Call("GET", "/v1/item", {"id": id})


def items(limit: int, **params: Param) -> Call[ItemPage]:
    return Call("GET", "/v1/items", {"limit": limit, **params})


def facets() -> Call[FacetCounts]:
    return Call("GET", "/v1/facets")
