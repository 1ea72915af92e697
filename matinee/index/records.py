"""What both engines give back, as hits and points: their records have the same shape under different types."""

from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np

from matinee.index.types import TEXT, Hit, Payload, Point
from matinee.vectors import Sparse, Vector


class Record(Protocol):
    """A stored point of either engine."""

    @property
    def id(self) -> object: ...
    @property
    def payload(self) -> Mapping[str, object] | None: ...
    @property
    def vector(self) -> object: ...


def to_hit(record: Record, score: float = 0.0) -> Hit:
    return Hit(str(record.id), score, cast(Payload, record.payload or {}), text_vector(record.vector))


def to_point(record: Record) -> Point:
    """A stored point with all its vectors, as it can be written again."""
    dense: dict[str, Vector] = {}
    sparse: dict[str, Sparse] = {}
    for name, value in (record.vector if isinstance(record.vector, Mapping) else {}).items():
        if hasattr(value, "indices"):
            sparse[name] = Sparse(list(value.indices), list(value.values))
        else:
            dense[name] = np.asarray(value, dtype=np.float32)
    return Point(str(record.id), cast(Payload, record.payload or {}), dense, sparse)


def text_vector(vectors: object) -> Vector | None:
    values = vectors.get(TEXT) if isinstance(vectors, Mapping) else None
    return None if values is None else np.asarray(values, dtype=np.float32)
