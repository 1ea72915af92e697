"""The index: points, searches and versions, one interface over two engines (`edge` in the process, `qdrant` on a server)."""
