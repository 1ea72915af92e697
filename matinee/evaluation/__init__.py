"""Evaluation: query sets, splits, exact scoring in memory, and ranking metrics."""
