"""A title that somebody typed -> the item that is meant: first by its exact folded title, else by trigrams and a closer look.

Case, accents, punctuation, articles, initials (`MASH` is `M*A*S*H`), typing errors, a year (`Dune (2021)`, `dune 2021`) and the other
qualifiers of `text.qualifiers` are understood, in what is typed and in what is stored. Keeps no list of titles of
its own, so any number of gateways agree; does not guess between remakes, and asks instead. Comparing titles takes CPU time: it runs off
the event loop, for `BUDGET_S` at most.
"""

import asyncio
import re
import string
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from matinee import languages
from matinee.characters import tidy
from matinee.errors import AmbiguousTitleError, DeadlineError, MatineeError, NotFoundError, TooManyTitlesError
from matinee.filters import ItemFilter
from matinee.index.protocols import Index
from matinee.index.types import TITLE, Hit, PopularQuery, Search, SparseQuery
from matinee.languages.folding import fold
from matinee.models.bm25 import indexed_words, title_trigrams
from matinee.text import qualifiers
from matinee.text.qualifiers import one_of
from matinee.text.title_keys import spellings

MAX_TITLES = 20
"""How many titles one request may bring: each costs a search and a comparison with its candidates."""
BUDGET_S = 3.0
"""How long the titles of requests that travel together may take; those that are not looked up by then fail."""

# Only the end of a title is searched, so that no title is long enough to make it slow.
_YEAR_CHARS = 16
_YEAR = re.compile(r"[\s,(\[]((?:18|19|20)\d\d)[)\]]?\Z")
_BEFORE_YEAR = string.whitespace + ","
_WORDS = languages.title_words()
_ARTICLE = re.compile(rf"^(?:{one_of(_WORDS.leading_articles)}) (?=\w)|(?<=\w) (?:{one_of(_WORDS.trailing_articles)})$")
_NUMERALS = {"ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
# Scores up to 1: the least score of a match, its least lead over the next one, and the score from which a match is exact.
_ACCEPT, _MARGIN, _EXACT = 0.8, 0.05, 0.98
# The same words; the same letters with other punctuation; the same title without its text in brackets.
_SAME_WORDS, _SAME_LETTERS, _WITHOUT_BRACKETS = 0.99, 0.98, 0.95
# Letters of a word that may be initials.
_MAX_INITIALS = 6
_NAMED = 3
# How many stored titles each way of writing a title is compared with; and of how many with exactly that title one is chosen.
_CANDIDATES = 20
_NAMESAKES = 60
# How many titles are one call of the index. Searches of other requests get their turn between two of them.
_TOGETHER = 20


@dataclass(frozen=True, slots=True)
class Resolution:
    """The item that a title stands for; `score` is 1 for an exact match."""

    id: str
    title: str
    year: int | None
    kind: str
    score: float


@dataclass(frozen=True, slots=True)
class _Text:
    """A title in the forms in which it is compared, made once for all comparisons."""

    words: list[str]
    folded: str
    # Without punctuation, and with initials as one word.
    spellings: frozenset[str]
    bare: str
    bare_words: list[str]
    in_order: str
    numbers: list[str]

    @property
    def keys(self) -> frozenset[str]:
        """Those of stored titles that are written just so (`matinee.text.title_keys`)."""
        return self.spellings | {self.folded}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A stored title in all of its forms, each with what a match with it is worth, and the year that the title itself says."""

    forms: list[tuple[_Text, float]]
    year: int | None


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read what was typed: a title, and the year that was written behind it."""

    text: _Text
    year: int | None
    searches: list[Search]


_Readings = Mapping[str, Sequence[_Reading]]
"""Of each title that was typed."""


def check_count(titles: Collection[str]) -> None:
    """Refuse the titles of a request where they are too many to be looked up."""
    if len(titles) > MAX_TITLES:
        raise TooManyTitlesError(
            f"likes and dislikes: {len(titles)} titles, at most {MAX_TITLES} are looked up in one request: send ids instead of titles "
            "(GET /v1/items?q=TITLE finds an id)"
        )


async def resolve_all(index: Index, titles: Iterable[str]) -> dict[str, Resolution | MatineeError]:
    """The one item with each title. The first titles are looked up first, each once.

    A title has an `AmbiguousTitleError` with the candidates where several fit equally well, a `NotFoundError` with the nearest where none
    does, and a `DeadlineError` where the search takes too long.
    """
    ends = time.monotonic() + BUDGET_S
    distinct = list(dict.fromkeys(titles))
    resolutions: dict[str, Resolution | MatineeError] = {}
    for start in range(0, len(distinct), _TOGETHER):
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                resolutions |= await _resolve_together(index, distinct[start : start + _TOGETHER], ends)
        except TimeoutError:
            break
    late = DeadlineError(f"looking up the titles took longer than {BUDGET_S:g} s: send ids instead, or fewer and shorter titles")
    return {title: resolutions.get(title) or late for title in distinct}


async def _resolve_together(index: Index, titles: Sequence[str], ends: float) -> dict[str, Resolution | MatineeError]:
    """Some titles with one call of the index; without those that were not reached before `ends`."""
    readings = await asyncio.to_thread(lambda: {title: _readings(title) for title in titles})
    try:
        exact = await _find_exactly(index, readings, ends) if index.manifest.titles else {}
        if time.monotonic() > ends:
            return exact
        return exact | await _find_nearly(index, {title: group for title, group in readings.items() if title not in exact}, ends)
    except MatineeError as error:
        return dict.fromkeys(titles, error)


async def _find_exactly(index: Index, readings: _Readings, ends: float) -> dict[str, Resolution | MatineeError]:
    """The titles that stand in the index just so, but for case, accents and punctuation: one look-up by keyword each."""
    searches = [
        Search(PopularQuery(), _NAMESAKES, titles=tuple(sorted({key for reading in group for key in reading.text.keys})))
        for group in readings.values()
    ]
    # Of as many as were asked for, the one that is meant may be among the others.
    hits = [hits if len(hits) < _NAMESAKES else [] for hits in await index.search(searches)]
    return await asyncio.to_thread(_choose_all, readings, hits, ends, _EXACT)


async def _find_nearly(index: Index, readings: _Readings, ends: float) -> dict[str, Resolution | MatineeError]:
    """The items whose titles share the most trigrams with what was typed, compared word by word."""
    if not readings:
        return {}
    answers = iter(await index.search([search for group in readings.values() for reading in group for search in reading.searches]))
    hits = [[hit for reading in group for _ in reading.searches for hit in next(answers)] for group in readings.values()]
    return await asyncio.to_thread(_choose_all, readings, hits, ends)


def _choose_all(
    readings: _Readings, hits: Iterable[Sequence[Hit]], ends: float, least: float | None = None
) -> dict[str, Resolution | MatineeError]:
    """The choice for each title, until `ends`; with `least`, only where its best match has that score."""
    chosen: dict[str, Resolution | MatineeError] = {}
    candidates: dict[str, _Candidate] = {}
    for (title, group), some in zip(readings.items(), hits, strict=True):
        if time.monotonic() > ends:
            break
        ranked = _rank(group, some, candidates)
        if least is None or (ranked and ranked[0].score >= least):
            chosen[title] = _choose(title, ranked)
    return chosen


def _rank(readings: Sequence[_Reading], hits: Iterable[Hit], candidates: dict[str, _Candidate]) -> list[Resolution]:
    """The hits by how well they fit. `candidates` keeps the texts of hits, which titles of one request often share."""
    ranked = []
    for hit in {hit.id: hit for hit in hits}.values():
        if hit.id not in candidates:
            candidates[hit.id] = _candidate(hit.payload["title"])
        ranked.append(_resolution(hit, candidates[hit.id], readings))
    return sorted(ranked, key=lambda match: match.score, reverse=True)


def _choose(title: str, ranked: Sequence[Resolution]) -> Resolution | MatineeError:
    """The one match that the text means."""
    if not ranked or ranked[0].score < _ACCEPT:
        return NotFoundError(_not_found_message(title, ranked[:_NAMED]))
    best = ranked[0].score
    equals = [match for match in ranked if match.score > best - _MARGIN and (best < _EXACT or match.score >= best)]
    if len(equals) > 1:
        return AmbiguousTitleError(
            f"{title!r} could be any of {', '.join(map(_with_year, equals))}: add the year or the kind, or use an id",
            [{"id": match.id, "title": match.title, "year": match.year, "kind": match.kind} for match in equals],
        )
    return ranked[0]


def check_unambiguous(text: str, own: Hit, named: Resolution | MatineeError) -> None:
    """Raises `AmbiguousTitleError` where a text is the id of one item, and word for word the title of another."""
    others: list[dict[str, object]]
    match named:
        case Resolution():
            others = [{"id": named.id, "title": named.title, "year": named.year, "kind": named.kind}]
        case AmbiguousTitleError():
            others = named.candidates
        case _:
            return
    others = [other for other in others if other["id"] != own.id and fold(str(other["title"])) == fold(text)]
    if others:
        candidate: dict[str, object] = {"id": own.id, **{key: own.payload.get(key) for key in ("title", "year", "kind")}}
        raise AmbiguousTitleError(
            f"{text!r} is the id of {own.payload['title']!r}, and the title of another item: send it as an object with `id` or `title`, or "
            "send the id of the one that is meant",
            [candidate, *others],
        )


async def suggest(index: Index, prefix: str, limit: int = 10, filter: ItemFilter = ItemFilter()) -> list[Hit]:
    """Items whose title goes on from what was typed so far, the popular ones first, then near misses; none for a blank."""
    if not prefix.strip():
        return []
    search = Search(SparseQuery(title_trigrams(tidy(prefix), open_end=True), TITLE), max(5 * limit, 50), filter)
    typed = {fold(prefix), fold(prefix, joined=True)}
    [hits] = await index.search([search])

    def nearest() -> list[Hit]:
        rated = [(max(_closeness(start, hit) for start in typed), hit.payload.get("popularity", 0.0), hit) for hit in hits]
        return [hit for closeness, _, hit in sorted(rated, key=lambda entry: entry[:2], reverse=True) if closeness > 0]

    return (await asyncio.to_thread(nearest))[:limit]


def _closeness(typed: str, hit: Hit) -> int:
    """3: the title starts with it; 2: starts with it but for an article; 1: a later word does, or it is nearly there; 0: neither."""
    title = hit.payload["title"]
    starts = {fold(form.title) for form in qualifiers.forms(title)} | {fold(title, joined=True)}
    if any(start.startswith(typed) for start in starts):
        return 3
    folded = fold(title)
    if _ARTICLE.sub("", folded).startswith(typed):
        return 2
    return int(f" {typed}" in folded or fuzz.ratio(typed, folded[: len(typed)]) >= 100 * _ACCEPT)


def _readings(title: str) -> list[_Reading]:
    """What may be meant: the whole text as a title, and without the year ("Blade Runner 2049" is both) or what else stands behind it."""
    typed = tidy(title)
    dated = _split_year(typed)
    readings: dict[tuple[str, int | None], None] = {(typed, None): None} | dict.fromkeys(dated)
    for name, year in dated or [(typed, None)]:
        readings |= {(form.title, year): None for form in qualifiers.forms(name) if form.whole}
    return [_reading(name, year) for name, year in readings]


def _reading(name: str, year: int | None) -> _Reading:
    text = _text(name)
    ways = [name, *sorted(text.spellings)]
    if len(text.bare_words) == 1 and 1 < len(text.bare) <= _MAX_INITIALS:
        ways.append(" ".join(text.bare))
    distinct = {indexed_words(way): way for way in reversed(ways)}
    # The stored trigrams lack the vowel signs of some scripts, so more titles share them.
    wide = 1 if indexed_words(name) == text.folded else 3
    return _Reading(text, year, [Search(SparseQuery(title_trigrams(way), TITLE), wide * _CANDIDATES) for way in distinct.values()])


def _split_year(title: str) -> list[tuple[str, int | None]]:
    """The title without the year at its end, and that year; empty where there is none, or nothing but a year."""
    written = title.rstrip()
    end = written[-_YEAR_CHARS:]
    match = _YEAR.search(end)
    if not match:
        return []
    name = written[: len(written) - len(end) + match.start()].rstrip(_BEFORE_YEAR)
    return [(name, int(match[1]))] if any(c.isalnum() or c == "_" for c in name) else []


def _candidate(title: str) -> _Candidate:
    forms = [(_text(form.title), 1.0 if form.whole else _WITHOUT_BRACKETS) for form in qualifiers.forms(title)]
    return _Candidate(forms, qualifiers.title_year(title))


def _text(title: str) -> _Text:
    folded = fold(title)
    # Without its article, and "Part II" as "Part 2".
    bare_words = [_NUMERALS.get(word, word) for word in _ARTICLE.sub("", folded).split()]
    return _Text(
        words=title.casefold().split(),
        folded=folded,
        spellings=spellings(title),
        bare=" ".join(bare_words),
        bare_words=bare_words,
        in_order=" ".join(sorted(bare_words)),
        numbers=sorted(word for word in bare_words if word.isdigit()),
    )


def _resolution(hit: Hit, candidate: _Candidate, readings: Sequence[_Reading]) -> Resolution:
    title, year = hit.payload["title"], hit.payload.get("year", candidate.year)
    score = max(
        worth * _similarity(reading.text, text) - _year_gap(reading.year, year) for reading in readings for text, worth in candidate.forms
    )
    return Resolution(hit.id, title, year, hit.payload.get("kind", ""), round(score, 4))


def _year_gap(typed: int | None, year: int | None) -> float:
    """The price of a wrong year. One off is common (festival and release); more means another item."""
    if typed is None or typed == year:
        return 0.0
    return 0.1 if year is None or abs(typed - year) == 1 else 0.3


def _similarity(typed: _Text, title: _Text) -> float:
    if typed.words == title.words:
        return 1.0
    if typed.folded == title.folded:
        return _SAME_WORDS
    if typed.numbers == title.numbers and typed.spellings & title.spellings:
        return _SAME_LETTERS
    similarity = max(
        fuzz.ratio(typed.folded, title.folded),
        0.98 * fuzz.ratio(typed.bare, title.bare),
        0.95 * fuzz.ratio(typed.in_order, title.in_order),
    )
    if len(typed.bare_words) > 2:
        # A long title is often typed without some of its words, a short one is not: "Dune" is not "Dune: Part Two".
        similarity = max(similarity, 0.85 * fuzz.token_set_ratio(typed.bare, title.bare))
    # "Toy Story 2" is nearly "Toy Story 3" in letters alone.
    return similarity / 100 if typed.numbers == title.numbers else similarity / 100 - 0.2


def _with_year(match: Resolution) -> str:
    has_year = qualifiers.title_year(match.title) == match.year
    return match.title if match.year is None or has_year else f"{match.title} ({match.year})"


def _not_found_message(title: str, nearest: Sequence[Resolution]) -> str:
    if not nearest:
        return f"no item is titled {title!r}, nor anything like it"
    return f"no item is titled {title!r}; the nearest are {', '.join(map(_with_year, nearest))}"
