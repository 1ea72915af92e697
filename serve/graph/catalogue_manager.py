"""What the Retriever answers about its catalogues: which there are, and that one is created, changed or deleted. `catalogues` does it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from matinee.filters.attributes import Attribute
from matinee.index.registry import CatalogueChanges, CatalogueRecord
from matinee.settings.index import Recipe

State = Literal["ready", "empty", "building", "deleting", "unavailable"]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One catalogue as a list shows it. `record` is None for the default one, `items` None where nobody has counted them yet.

    `state`: `empty` has no index version yet, `building` none but a build under way, `unavailable` one that can't be read now. `building`
    is also true while a version answers and another is built. `trouble`: why it is unavailable, or its last change failed.
    """

    name: str
    default: bool
    state: State
    record: CatalogueRecord | None = None
    version: str | None = None
    recipe: Recipe | None = None
    items: int | None = None
    attributes: int = 0
    open: bool = False
    building: bool = False
    trouble: str | None = None


class CatalogueManager(Protocol):
    """The methods that messages name (`messages.CataloguesMessage.answer`)."""

    async def entries(self, names: tuple[str, ...] | None) -> list[CatalogueEntry]: ...
    async def records(self) -> dict[str, CatalogueRecord]: ...
    async def busy(self) -> list[str]: ...
    async def create(self, record: CatalogueRecord, fingerprint: str, dimension: int) -> CatalogueEntry: ...
    async def change(self, name: str, changes: CatalogueChanges) -> CatalogueEntry: ...
    async def create_index(
        self, name: str, attributes: dict[str, Attribute] | None, fingerprint: str, dimension: int
    ) -> CatalogueEntry: ...
    async def delete(self, name: str) -> None: ...
