"""What goes into the two models and comes out of them. Imports neither of them: a process that only talks to them need not load PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from matinee.vectors import Matrix

Kind = Literal["query", "document"]
"""What a text is to the embedder: some models have a prompt for each."""


class Encoder(Protocol):
    """What makes the vectors: an `Embedder` in this process, or a running server's."""

    fingerprint: str
    dimension: int
    model_id: str

    def encode(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        """float32[texts, dimension] of unit length"""
        ...


@dataclass(frozen=True)
class Description:
    """What the enhancer says of one item.

    `violations` are those of the answer that was kept, before its offending sentences were removed. `marked`: not every check was
    passed. `source`: the model, or a sentence made of the facts alone.
    """

    text: str
    source: Literal["model", "template"]
    violations: tuple[str, ...]
    adherence: float
    attempts: int
    tokens: int
    model: str
    marked: bool
    elapsed_s: float
