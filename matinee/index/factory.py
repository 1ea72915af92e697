"""The store and the registry of the engine that the settings name."""

from matinee.index.edge.registry import EdgeRegistry
from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import IndexStore
from matinee.index.registry import CatalogueRegistry
from matinee.settings.tree import Settings


def open_store(settings: Settings) -> IndexStore:
    if settings.index.engine == "edge":
        return EdgeStore(settings.index_dir, settings.catalogue, settings.index)
    # Imported here: the client takes seconds to import, and the embedded engine does not need it.
    from matinee.index.qdrant.store import QdrantStore
    from matinee.index.qdrant.tenant_store import TenantStore

    if settings.index.collection == "shared":
        return TenantStore(settings.index, settings.catalogue)
    return QdrantStore(settings.index, settings.catalogue)


def open_registry(settings: Settings) -> CatalogueRegistry:
    """The catalogues beside the default one."""
    if settings.index.engine == "edge":
        return EdgeRegistry(settings.indexes_dir)
    from matinee.index.qdrant.registry import QdrantRegistry

    return QdrantRegistry(settings.index)
