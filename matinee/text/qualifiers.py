"""Qualifiers: what catalogues and people write behind a title: a year, a moved article, a series, another name.

    Grid, The (1999)   Postmistress, The (Le facteur) (2001)   The Lantern Games (The Lantern Games, #1)

Stored and typed titles are read alike. Titles are never changed: these are the other forms in which they are compared. Only the end of a
title is searched, so that no title is long enough to make it slow.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from matinee import languages


def one_of(words: Mapping[str, Iterable[str]]) -> str:
    """An expression that matches any word, of whichever language."""
    return "|".join(sorted({re.escape(word) for group in words.values() for word in group}))


_END = 24
_YEAR = re.compile(r"[(\[]((?:18|19|20)\d\d)(?: ?[-–—/] ?(?:\d\d(?:\d\d)?)?)? ?[)\]]\Z")
_WORDS = languages.title_words()
_ARTICLE = re.compile(rf", ?({one_of(_WORDS.moved_articles)})\Z", re.IGNORECASE)
_SERIES = re.compile(rf"#\d|\b(?:{one_of(_WORDS.parts)})\.? \d", re.IGNORECASE)
_ALSO = re.compile(rf"(?:{one_of(_WORDS.other_name)})[: ] ?", re.IGNORECASE)
_MAX_GROUPS = 3


class TitleForm(NamedTuple):
    """One way to write a title. `whole`: nothing but a year, an article or a series was left out."""

    title: str
    whole: bool


def title_year(title: str) -> int | None:
    """The year in brackets at the end of a title; of a span the first."""
    return _split_year(title)[1]


def forms(title: str) -> list[TitleForm]:
    """The title itself, and what it is without its qualifiers; also the other name that stands in brackets behind it."""
    name, _ = _split_year(title)
    variants = [TitleForm(title, whole=True), *_with_article(name, whole=True)]
    for _ in range(_MAX_GROUPS):
        start = name.rfind("(")
        if not name.endswith(")") or start <= 0 or not name[:start].strip():
            break
        name, group = name[:start].rstrip(), name[start + 1 : -1].strip()
        is_series = _SERIES.search(group) is not None
        variants += _with_article(name, whole=is_series)
        if not is_series and len(group) > 2:
            variants += _with_article(_ALSO.sub("", group, count=1), whole=False)
    distinct: dict[str, TitleForm] = {}
    for form in variants:
        distinct.setdefault(form.title, form)
    return list(distinct.values())


def _split_year(title: str) -> tuple[str, int | None]:
    written = title.rstrip()
    end = written[-_END:]
    match = _YEAR.search(end)
    if match is None:
        return written, None
    name = written[: len(written) - len(end) + match.start()].rstrip()
    return (name, int(match[1])) if any(map(str.isalnum, name)) else (written, None)


def _with_article(name: str, *, whole: bool) -> list[TitleForm]:
    """The name, and with an article that stands behind it in front."""
    match = _ARTICLE.search(name[-_END:])
    if match is None:
        return [TitleForm(name, whole)]
    article = match[1]
    moved = f"{article}{'' if article[-1] in '’' + chr(39) else ' '}{name[: len(name) - len(match[0])].strip()}"
    return [TitleForm(moved, whole), TitleForm(name, whole)]
