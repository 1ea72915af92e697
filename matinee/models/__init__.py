"""Models: the embedder, the enhancer with its backends, BM25, and where the weights come from."""
