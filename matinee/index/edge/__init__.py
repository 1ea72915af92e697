"""The embedded engine: `qdrant-edge` inside this process, one folder a version."""
