"""The keys of a worker: of its own machine. Ray never gets them."""

from typing import Literal

from matinee.settings.load import with_key
from matinee.settings.tree import Settings


def with_own_key(settings: Settings, part: Literal["index", "enhancer"]) -> Settings:
    """The settings with a key of this machine: out of its environment, or out of the settings file where it has one too."""
    there = settings.config is not None and settings.config.expanduser().is_file()
    return with_key(settings if there else settings.model_copy(update={"config": None}), part)
