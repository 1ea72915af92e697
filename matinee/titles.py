"""A title that somebody typed -> the item that is meant: trigram search inside the index, then a closer look at the best few.

Case, accents, punctuation, articles, typing errors and a year (`Dune (2021)`, `dune 2021`) are understood. Keeps no list of titles of
its own, so any number of gateways agree; does not guess between remakes, and asks instead.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from matinee.errors import AmbiguousTitleError, NotFoundError
from matinee.index import TITLE, Hit, Index, Lexical, Search
from matinee.items import ItemFilter
from matinee.sparse import normalised, title_trigrams

_YEAR = re.compile(r"(?P<name>.*\w.*?)[\s,]*[\s,(\[](?P<year>(?:18|19|20)\d\d)[)\]]?\s*")
_ARTICLE = re.compile(r"^(?:the|a|an|le|la|les|l|el|los|las|der|die|das|il) (?=\w)|(?<=\w) (?:the|a|an)$")
_NUMERALS = {"ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
# Of 1: what is near enough to be meant, how far ahead of the next it must be, and from where on a match counts as exact.
_ACCEPT, _MARGIN, _EXACT = 0.8, 0.05, 0.99
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Resolution:
    """The item that a title stands for; `score` is 1 for an exact match."""

    id: str
    title: str
    year: int | None
    kind: str
    score: float


async def resolve(index: Index, title: str, *, kind: str | None = None, limit: int = 20) -> Resolution:
    """The one item with this title.

    Raises `AmbiguousTitleError` with the candidates where several fit equally well, `NotFoundError` with the nearest where none does.
    """
    readings = _readings(title)
    filter = ItemFilter(kind=(kind,)) if kind else ItemFilter()
    answers = await index.search([Search(Lexical(title_trigrams(name), TITLE), limit, filter) for name, _ in readings])
    found = {hit.id: hit for hits in answers for hit in hits}.values()
    ranked = sorted((_resolution(hit, readings) for hit in found), key=lambda match: match.score, reverse=True)
    if not ranked or ranked[0].score < _ACCEPT:
        raise NotFoundError(_not_found(title, ranked[:_NAMED]))
    best = ranked[0].score
    equals = [match for match in ranked if match.score > best - _MARGIN and (best < _EXACT or match.score >= best)]
    if len(equals) > 1:
        raise AmbiguousTitleError(
            f"{title!r} could be any of {', '.join(map(_named, equals))}: add the year or the kind, or use an id",
            [{"id": match.id, "title": match.title, "year": match.year, "kind": match.kind} for match in equals],
        )
    return ranked[0]


async def suggest(index: Index, prefix: str, limit: int = 10, *, kind: str | None = None) -> list[Hit]:
    """Items whose title goes on from what was typed so far, the popular ones first, then near misses; none for a blank."""
    if not prefix.strip():
        return []
    filter = ItemFilter(kind=(kind,)) if kind else ItemFilter()
    search = Search(Lexical(title_trigrams(prefix, open_end=True), TITLE), max(5 * limit, 50), filter)
    typed = normalised(prefix)
    hits = [hit for hit in (await index.search([search]))[0] if _closeness(typed, hit) > 0]
    return sorted(hits, key=lambda hit: (_closeness(typed, hit), hit.payload.get("popularity", 0.0)), reverse=True)[:limit]


def _closeness(typed: str, hit: Hit) -> int:
    """3: the title starts with it; 2: starts with it but for an article; 1: a later word does, or it is nearly there; 0: neither."""
    title = normalised(hit.payload["title"])
    if title.startswith(typed):
        return 3
    if _ARTICLE.sub("", title).startswith(typed):
        return 2
    return int(f" {typed}" in title or fuzz.ratio(typed, title[: len(typed)]) >= 100 * _ACCEPT)


def _readings(title: str) -> list[tuple[str, int | None]]:
    """What may be meant: the whole text as a title, and the text without the year at its end ("Blade Runner 2049" is both)."""
    dated = _YEAR.fullmatch(title)
    return [(title, None), (dated["name"], int(dated["year"]))] if dated else [(title, None)]


def _resolution(hit: Hit, readings: Sequence[tuple[str, int | None]]) -> Resolution:
    title, year = hit.payload["title"], hit.payload.get("year")
    score = max(_likeness(name, title) - _year_gap(wanted, year) for name, wanted in readings)
    return Resolution(hit.id, title, year, hit.payload.get("kind", ""), round(score, 4))


def _year_gap(wanted: int | None, year: int | None) -> float:
    """The price of a wrong year. One off is common (festival and release); more means another film."""
    if wanted is None or wanted == year:
        return 0.0
    return 0.1 if year is None or abs(wanted - year) == 1 else 0.3


def _likeness(typed: str, title: str) -> float:
    if typed.casefold().split() == title.casefold().split():
        return 1.0
    a, b = normalised(typed), normalised(title)
    if a == b:
        return _EXACT
    bare_a, bare_b = _bare(a), _bare(b)
    likeness = max(fuzz.ratio(a, b), 0.98 * fuzz.ratio(bare_a, bare_b), 0.95 * fuzz.token_sort_ratio(bare_a, bare_b)) / 100
    if len(bare_a.split()) > 2:
        # A long title is often typed without some of its words, a short one is not: "Dune" is not "Dune: Part Two".
        likeness = max(likeness, 0.85 * fuzz.token_set_ratio(bare_a, bare_b) / 100)
    # "Toy Story 2" is nearly "Toy Story 3" in letters alone.
    return likeness if _numbers(bare_a) == _numbers(bare_b) else likeness - 0.2


def _bare(title: str) -> str:
    """Without its article, and "Part II" as "Part 2"."""
    return " ".join(_NUMERALS.get(word, word) for word in _ARTICLE.sub("", title).split())


def _numbers(text: str) -> list[str]:
    return sorted(word for word in text.split() if word.isdigit())


def _named(match: Resolution) -> str:
    return f"{match.title} ({match.year})" if match.year else match.title


def _not_found(title: str, nearest: Sequence[Resolution]) -> str:
    if not nearest:
        return f"no item is titled {title!r}, nor anything like it"
    return f"no item is titled {title!r}; the nearest are {', '.join(map(_named, nearest))}"
