"""People: names that hold the separator of the list they stand in."""

from collections.abc import Sequence

_PERSONS = ("jr", "jr.", "sr", "sr.", "ii", "iii", "iv", "phd", "ph.d.", "ph.d", "md", "m.d.", "esq", "esq.", "dds", "ed.", "eds.")
_FIRMS = ("inc", "inc.", "ltd", "ltd.", "llc", "llc.", "l.l.c.", "corp", "corp.", "co.", "gmbh", "s.a.", "s.r.l.")
_SUFFIXES = frozenset(_PERSONS + _FIRMS)


def join_suffixes(names: Sequence[str]) -> list[str]:
    """Names that were split at commas, with `Jr.`, `Inc.` and the like back at the name before."""
    joined: list[str] = []
    for name in names:
        if joined and name.strip().casefold() in _SUFFIXES:
            joined[-1] = f"{joined[-1]}, {name.strip()}"
        else:
            joined.append(name)
    return joined
