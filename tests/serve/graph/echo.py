"""A model for tests of the model slot: it loads at once, and answers with its name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """Settings of a tiny model."""

    name: str
    breaks: bool = False


@dataclass
class Echo:
    """A model that answers with its name."""

    name: str
