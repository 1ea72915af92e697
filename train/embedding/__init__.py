"""What fine-tunes the embedder: pairs, hard negatives, the dev set, the training loop."""
