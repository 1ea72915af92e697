"""The store of the engine that the settings name."""

from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import IndexStore
from matinee.settings.tree import Settings


def open_store(settings: Settings) -> IndexStore:
    if settings.index.engine == "edge":
        return EdgeStore(settings.index_dir, settings.catalogue, settings.index)
    # Imported here: the client takes seconds to import, and the embedded engine does not need it.
    from matinee.index.qdrant.store import QdrantStore

    return QdrantStore(settings.index, settings.catalogue)
