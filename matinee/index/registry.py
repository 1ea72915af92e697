"""The registry of the catalogues beside the default one: what each is called, what it is made of, and whether it is being deleted.

It lies beside the indexes, where an engine keeps it (`edge.registry`, `qdrant.registry`). Does not open catalogues and has no items.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from typing_extensions import TypedDict

from matinee.errors import CatalogueAbsentError, CatalogueConflictError, SettingsError, UnknownAttributeError
from matinee.filters.attributes import MAX_ATTRIBUTES, Attribute, Attributes, describe
from matinee.index.types import Manifest
from matinee.items import Name
from matinee.patterns import message_of
from matinee.settings.index import Recipe
from matinee.settings.tree import CATALOGUE_NAME, Mode, SearchSettings, Settings

RESERVED = frozenset({"all", "default", "none"})
"""Names that no catalogue gets: they stand for something else in messages and metrics."""

CatalogueName = Annotated[str, StringConstraints(pattern=CATALOGUE_NAME)]


class SearchChanges(BaseModel):
    """What a catalogue ranks by other settings than `search`; null is as there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode | None = None
    fusion: Literal["linear", "dbsf", "rrf"] | None = None
    bm25_weight: float | None = None
    rrf_k: int | None = None
    dense_weight: float | None = None
    sparse_weight: float | None = None
    prefetch: int | None = None
    max_k: int | None = None

    def apply_to(self, search: SearchSettings) -> SearchSettings:
        """Raises `SettingsError` where a value is not one that the settings take."""
        try:
            return SearchSettings(**search.model_dump() | self.model_dump(exclude_none=True))
        except ValidationError as error:
            problems = (f"search.{'.'.join(map(str, one['loc']))}: {message_of(one)}" for one in error.errors(include_url=False))
            raise SettingsError("; ".join(problems)) from None


class CatalogueRecord(BaseModel):
    """One catalogue of the registry. `items` is the last known count of one that is not open.

    `pending`: some items may still have to be described or embedded. `shared`: its small versions lie in a collection with those of
    others (qdrant).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: CatalogueName
    title: Name | None = Field(None, description="what people see instead of its name")
    kind: Name | None = Field(None, description="what its items are, such as film, where they do not say")
    recipe: Recipe | None = Field(None, description="text that an ingest embeds; null is `index.recipe`")
    attributes: dict[str, Attribute] | None = Field(None, description="what its items can be filtered by; null: as an ingest proposes")
    search: SearchChanges = SearchChanges()
    created: str = ""
    state: Literal["ready", "deleting"] = "ready"
    items: int | None = None
    pending: bool = False
    shared: bool = False

    def settings(self, base: Settings) -> Settings:
        """`base` as this catalogue has it."""
        own: dict[str, object] = {"collection": "shared" if self.shared else "own"}
        index = base.index.model_copy(update=own if self.recipe is None else own | {"recipe": self.recipe})
        return base.model_copy(update={"catalogue": self.name, "index": index, "search": self.search.apply_to(base.search)})


CatalogueState = Literal["ready", "empty", "building", "deleting", "unavailable"]


class CatalogueReport(TypedDict):
    """A catalogue."""

    name: str
    default: Annotated[bool, Field(description="whether the routes without a catalogue's name are for this one")]
    state: Annotated[
        CatalogueState,
        Field(
            description="empty: no index was built yet; building: its first one is being built; unavailable: its index can't be read now"
        ),
    ]
    building: Annotated[
        bool, Field(description="whether an index is being built, or copied for other attributes; until its end the old one answers")
    ]
    trouble: Annotated[str | None, Field(description="why it is unavailable, or why its last change failed")]
    open: Annotated[bool, Field(description="whether its index is open; it is opened by the next request")]
    version: Annotated[str | None, Field(description="the index version that answers")]
    items: Annotated[int | None, Field(description="items in it; of one that is not open, when it was last closed or built")]
    attributes: Annotated[int, Field(description="how many attributes its items can be filtered, sorted and counted by")]
    title: Annotated[str | None, Field(description="what people see instead of the name")]
    kind: str | None
    recipe: Annotated[str | None, Field(description="text that the index that answers embeds")]
    created: Annotated[str | None, Field(description="null for the default one")]
    search: Annotated[dict[str, object], Field(description="settings of ranking that differ from the server's")]


def report(
    name: str,
    record: CatalogueRecord | None,
    state: CatalogueState,
    manifest: Manifest | None = None,
    *,
    items: int | None = None,
    open: bool = False,
    building: bool = False,
    trouble: str | None = None,
) -> CatalogueReport:
    """What a list shows of a catalogue. `record` is None for the default one."""
    return {
        "name": name,
        "default": record is None,
        "state": state,
        "building": building,
        "trouble": trouble,
        "open": open,
        "version": None if manifest is None else manifest.version,
        "items": items,
        "attributes": 0 if manifest is None else len(manifest.declared),
        "title": None if record is None else record.title,
        "kind": None if record is None else record.kind,
        "recipe": None if manifest is None else manifest.recipe,
        "created": None if record is None else record.created,
        "search": {} if record is None else record.search.model_dump(exclude_none=True),
    }


class CatalogueChanges(BaseModel):
    """Changes of a catalogue: what is set here replaces what it had, null what a new one has without it. The rest stays.

    `search` and `attributes` are changed entry by entry; null removes one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Name | None = None
    kind: Name | None = None
    recipe: Recipe | None = None
    attributes: dict[str, Attribute | None] | None = None
    search: SearchChanges | None = None

    def require_default(self) -> None:
        """Raises `CatalogueConflictError` where these are no changes of the default catalogue."""
        if others := sorted(self.model_fields_set - {"attributes"}):
            raise CatalogueConflictError(
                f"{', '.join(others)}: the default catalogue has what the server's settings say; only its attributes are changed here"
            )

    def apply_to(self, record: CatalogueRecord) -> CatalogueRecord:
        """The record as it is then, but for attributes that are declared. Without any, the next ingest proposes them anew."""
        update: dict[str, object] = {name: getattr(self, name) for name in self.model_fields_set & {"title", "kind", "recipe"}}
        if "attributes" in self.model_fields_set and self.attributes is None:
            update["attributes"] = None
        if "search" in self.model_fields_set:
            own = {} if self.search is None else {name: getattr(self.search, name) for name in self.search.model_fields_set}
            update["search"] = SearchChanges() if self.search is None else record.search.model_copy(update=own)
        return record.model_copy(update=update)

    def declare_on(self, before: Attributes) -> dict[str, Attribute] | None:
        """All attributes as they are then; None where these stay."""
        if self.attributes is None:
            return None
        after = {name: one for name, one in (dict(before) | self.attributes).items() if one is not None}
        if unknown := [name for name, one in self.attributes.items() if one is None and name not in before]:
            raise UnknownAttributeError(f"attributes: there is no {unknown[0]!r} to remove; there are: {describe(before)}")
        if len(after) > MAX_ATTRIBUTES:
            raise UnknownAttributeError(f"attributes: {len(after)} would be there, and at most {MAX_ATTRIBUTES} may be: remove some")
        return None if after == dict(before) else after


class CatalogueRegistry(Protocol):
    """All records. Raises `IndexUnavailableError` where they can't be read or written now."""

    async def records(self) -> dict[str, CatalogueRecord]:
        """By name."""
        ...

    async def add(self, record: CatalogueRecord, most: int) -> None:
        """Raises `CatalogueConflictError` where there is one of this name, or where there are `most` already."""
        ...

    async def update(self, name: str, change: Callable[[CatalogueRecord], CatalogueRecord]) -> CatalogueRecord:
        """The record after `change`, which is applied to it as it is now, and again where another process came first.

        Raises `CatalogueAbsentError` where there is none of this name any more.
        """
        ...

    async def remove(self, name: str) -> None:
        """Does nothing where there is none."""
        ...

    async def close(self) -> None: ...


def new_record(record: CatalogueRecord, *, shared: bool = False) -> CatalogueRecord:
    """A record of now. Microseconds, because one that is deleted and created again in the same second is another."""
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    return record.model_copy(update={"created": created, "state": "ready", "items": None, "shared": shared})


def shares(settings: Settings) -> bool:
    """Whether a catalogue that is created shares collections."""
    return settings.index.engine == "qdrant" and settings.index.catalogues.share_below > 0


def check_new(record: CatalogueRecord, default: str, known: Mapping[str, CatalogueRecord], most: int) -> None:
    """Raises where a catalogue of this name can't be created."""
    if record.name in RESERVED:
        raise SettingsError(f"{record.name!r} is no name for a catalogue: it means something else; choose another")
    if record.name == default:
        raise CatalogueConflictError(f"the catalogue {record.name!r} exists already: it is the default one of this server")
    check_free(record.name, known, most)


def check_free(name: str, known: Mapping[str, CatalogueRecord], most: int) -> None:
    if name in known:
        state = "is being deleted: wait for its end" if known[name].state == "deleting" else "exists already: delete it first"
        raise CatalogueConflictError(f"the catalogue {name!r} {state}, or choose another name")
    if len(known) >= most:
        raise CatalogueConflictError(f"there are {most} catalogues already (index.catalogues.most): delete one, or raise the setting")


def absent(name: str, known: Iterable[str] = ()) -> CatalogueAbsentError:
    """The error for an unknown name. `known`: those that whoever asks may see."""
    names = ", ".join(sorted(known))
    return CatalogueAbsentError(
        f"there is no catalogue {name[:80]!r}: {f'use one of {names}' if names else 'see `matinee catalogues list`'}"
    )
