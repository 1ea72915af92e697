"""What goes into the two models and comes out of them. Imports neither of them: a process that only talks to them need not load PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from matinee.vectors import Matrix

Kind = Literal["query", "document"]
"""What a text is to the embedder: some models have a prompt for each."""

Tokens = dict[str, np.ndarray[tuple[int, int], np.dtype[np.int64]]]
"""Padded texts: int64[texts, length] under each name that the model reads."""


class Forward(Protocol):
    """An encoder without its tokeniser: padded texts -> pooled vectors (float32[texts, dimension])."""

    call_tokens: float
    """How many more tokens cost as much as another call."""

    def __call__(self, inputs: Tokens) -> Matrix: ...


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
