"""The types of vectors: dense, sparse, and a matrix of dense ones."""

from dataclasses import dataclass

import numpy as np

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector: `values[i]` at dimension `indices[i]`; indices are unique."""

    indices: list[int]
    values: list[float]
