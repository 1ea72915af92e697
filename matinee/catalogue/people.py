"""People: names that hold the separator of the list they stand in."""

from collections.abc import Sequence

from matinee import languages

_SUFFIXES = languages.catalogue_words().name_suffixes


def join_suffixes(names: Sequence[str]) -> list[str]:
    """Names that were split at commas, with `Jr.`, `Inc.` and the like back at the name before."""
    joined: list[str] = []
    for name in names:
        if joined and name.strip().casefold() in _SUFFIXES:
            joined[-1] = f"{joined[-1]}, {name.strip()}"
        else:
            joined.append(name)
    return joined
