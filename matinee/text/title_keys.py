"""A title's keys: the folded forms under which an exactly typed title finds it.

A title that is only nearly the same (a typing error, an article left out) has other keys: trigrams find it (`matinee.models.bm25`).
"""

from collections.abc import Sequence
from itertools import groupby

from matinee.languages.folding import fold
from matinee.text import qualifiers


def title_keys(title: str) -> list[str]:
    """Those of a stored title: with and without its year, series and moved article."""
    return sorted({key for form in qualifiers.forms(title) if form.whole for key in (fold(form.title), *spellings(form.title))})


def spellings(title: str) -> frozenset[str]:
    """The title without punctuation, and with initials as one word."""
    return frozenset((fold(title, joined=True), _join_initials(fold(title).split())))


def _join_initials(words: Sequence[str]) -> str:
    """`s w a t firefight` -> `swat firefight`"""
    runs = groupby(words, key=lambda word: len(word) == 1 and word.isalpha())
    return " ".join("".join(run) if single else " ".join(run) for single, run in runs)
