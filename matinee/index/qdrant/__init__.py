"""The server engine: a Qdrant server or cluster, one collection a version."""
