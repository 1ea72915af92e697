"""What a generated text may say: checked against the item's facts.

Finds years, names, credits and genres that the facts don't have, echoes of the worked examples, and facts that the text should carry
and doesn't. Works on words: an invented plot is found only where hardly any of its words are the facts' own. Does not generate and does
not decide what happens then: that is `enhancer`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from matinee.items import Item
from matinee.text import templates
from matinee.text.cleaning import MIN_WORDS, WORD, loops, runs, usable, whole_sentences, words

# Chosen on some 60 answers of the 270M base model: below it every plot was made up, above it most were a summary.
MIN_SUPPORT = 0.3

_YEAR = re.compile(r"(?<![\d.,:$£€#])(1[5-9]\d\d|20\d\d)(s?)\b(?![,:.]\d)")
_CREDIT = re.compile(
    r"\b(?P<how>directed|written|authored|penned|created|produced|developed|composed|starring|stars|played|portrayed|voiced|novel|book)"
    r"(?: and \w+)?(?: by)? (?P<who>[A-ZÀ-Þ][\w'’.-]*(?:(?: (?:de|van|von|da|del|la|le|bin))* [A-ZÀ-Þ][\w'’.-]*)*)"
)
_ROLES = {
    "directed": {"director", "directors", "creator"},
    "produced": {"producer", "producers", "studio"},
    "developed": {"developer", "developers", "studio"},
    "composed": {"composer", "composers"},
    "starring": {"cast", "actor", "actors"},
    "stars": {"cast", "actor", "actors"},
    "played": {"cast", "actor", "actors"},
    "portrayed": {"cast", "actor", "actors"},
    "voiced": {"cast", "actor", "actors", "narrator"},
}
_WRITERS = {"author", "authors", "writer", "writers", "creator", "director"}
# Genres as a text may name them, each with what stands for it in a catalogue.
# fmt: off
_GENRES = {
    "action": ("action",), "adventure": ("adventure",), "animation": ("animation", "anime", "animated"),
    "biography": ("biography", "biographical", "biopic"), "crime": ("crime",), "comedy": ("comedy", "comic", "comedic"),
    "documentary": ("documentary",), "drama": ("drama", "dramatic", "dramedy"), "family": ("family",), "fantasy": ("fantasy",),
    "history": ("history", "historical"), "horror": ("horror",), "music": ("music", "musical"), "mystery": ("mystery",),
    "romance": ("romance", "romantic"), "science fiction": ("science fiction", "sci-fi", "science-fiction", "scifi"),
    "sport": ("sport", "sports"), "superhero": ("superhero",), "thriller": ("thriller",), "tv movie": ("tv movie", "television"),
    "war": ("war",), "western": ("western",),
}
# fmt: on
# Only these are a claim wherever they stand; "family" or "war" are one just before "film", "story" and their like.
_ALWAYS_GENRE = {"comedy", "documentary", "horror", "thriller", "western", "science fiction"}
_KIND_WORDS = r"(?:film|movie|picture|story|tale|series|show|novel|book|game|thriller|comedy|drama)"
# A genre's name -> what names it in an item's facts, and what claims it in a text.
_NAMED_AS = {name: re.compile(rf"\b{re.escape(name)}\b") for names in _GENRES.values() for name in names}
_CLAIMED_AS = {
    name: _NAMED_AS[name] if genre in _ALWAYS_GENRE else re.compile(rf"\b{re.escape(name)} {_KIND_WORDS}\b")
    for genre, names in _GENRES.items()
    for name in names
}
# Capitalised in any text, and no name that could be invented.
# fmt: off
_ORDINARY = frozenset({
    "i", "i'm", "i'll", "i've", "god", "christmas", "halloween", "easter", "earth", "internet", "monday", "tuesday", "wednesday",
    "thursday", "friday", "saturday", "sunday", "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december", "american", "british", "english", "european", "asian", "african", "western", "eastern", "french",
    "german", "italian", "spanish", "japanese", "chinese", "korean", "russian", "indian", "mexican", "irish", "scottish", "australian",
    "canadian", "hollywood", "bollywood", "anime", "tv", "dvd", "ok", "mr", "mrs", "ms", "dr", "us", "uk", "usa", "it", "a", "an", "the",
    "in", "on", "at", "of", "and", "or", "but", "as", "by", "for", "from", "to", "with", "when", "after", "before", "while", "his", "her",
    "their", "its", "this", "that", "these", "those", "he", "she", "they", "we", "you", "who", "what", "where", "why", "how", "all",
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
})
# fmt: on

# fmt: off
_EMPTY = frozenset({
    "about", "after", "also", "been", "between", "film", "from", "have", "into", "must", "over", "story", "tale", "that", "their", "them",
    "then", "there", "they", "this", "what", "when", "where", "which", "will", "with",
})
# fmt: on


@dataclass(frozen=True)
class Adherence:
    """The paper's "constraint adherence": which required facts a text carries. `None`: the item has no such fact."""

    genre: bool | None
    person: bool | None
    year: bool | None

    @property
    def score(self) -> float:
        """The share of the item's required facts that the text carries; 1 where the item has none."""
        required = [carried for carried in (self.genre, self.person, self.year) if carried is not None]
        return sum(required) / len(required) if required else 1.0


def violations(text: str, item: Item) -> tuple[str, ...]:
    """Everything in `text` that the facts don't bear out, and the required facts that it lacks: 'year: 1999', 'missing: genre'."""
    if not usable(text):
        return ("empty",)
    facts = _Facts(item)
    found = [problem for sentence in whole_sentences(text) for problem in _inventions(sentence, facts)]
    if loops(text):
        found.append("loop")
    if _made_up(text, item):
        found.append("unsupported")
    if adherence(text, item).genre is False:
        found.append("missing: genre")
    return tuple(dict.fromkeys(found))


def grounded_part(text: str, item: Item) -> str:
    """The sentences of `text` that hold no invention; empty where nothing usable remains, or the rest is still made up."""
    facts = _Facts(item)
    kept = " ".join(sentence for sentence in whole_sentences(text) if not any(_inventions(sentence, facts)))
    return kept if usable(kept) and not loops(kept) and not _made_up(kept, item) else ""


def adherence(text: str, item: Item) -> Adherence:
    told = text.casefold()
    said = set(words(text))
    genres = [name for genre in item.genres for name in _genre_words(genre)]
    return Adherence(
        genre=any(re.search(rf"\b{re.escape(name)}\b", told) for name in genres) if genres else None,
        person=any(_surname(name) in said for name in item.names()) if item.names() else None,
        year=str(item.year) in told if item.year is not None else None,
    )


def support(text: str, item: Item) -> float:
    """The share of a text's content words, title and genres apart, that the facts have too: low where the plot is made up."""
    facts = _content(_facts(item))
    said = _content(text) - _content(f"{item.title} {item.kind} {' '.join(item.genres)}")
    return len(said & facts) / len(said) if said else 1.0


def _made_up(text: str, item: Item) -> bool:
    return len(_content(item.overview)) >= MIN_WORDS and support(text, item) < MIN_SUPPORT


class _Facts:
    """An item's facts in the forms in which sentences are checked against them, made once for all sentences."""

    def __init__(self, item: Item) -> None:
        text = _facts(item)
        told = words(text)
        self.item = item
        self.words = frozenset(told)
        self.runs = frozenset(runs(told, 5))
        self.years = frozenset(year for year, _ in _YEAR.findall(text))
        self.decades = frozenset(year[:3] for year in self.years)
        self.overview = item.overview.casefold()
        own = {name for genre in item.genres for name in _genre_words(genre)}
        folded = text.casefold()
        self.foreign = [name for name, named in _NAMED_AS.items() if name not in own and not named.search(folded)] if item.genres else []
        self.credits, self.tells = cache(self._credits), cache(self._tells)

    def know(self, word: str) -> bool:
        """Whether a word of a name is in the facts, or all parts of it are ordinary or in the facts."""
        return not self.words.isdisjoint((word, _stem(word))) or all(part in self.words or part in _ORDINARY for part in word.split("-"))

    def people(self, how: str) -> set[str]:
        """The words of the names of those who did this."""
        roles = _ROLES.get(how, _WRITERS)
        return {word for role, names in self.item.people.items() if role in roles for name in names for word in words(name)}

    def _tells(self, how: str, name: str) -> bool:
        """Whether the overview says of somebody with this first name that they did this."""
        return any(self.overview.find(name, start, end + len(name)) >= 0 for start, end in self.credits(how))

    def _credits(self, how: str) -> Sequence[tuple[int, int]]:
        """Where the overview names somebody who did this: from the first such word of each sentence to the sentence's end."""
        spans: list[tuple[int, int]] = []
        start: int | None = None
        for match in re.finditer(rf"\b{re.escape(how)}\b|\.", self.overview):
            if match[0] != ".":
                start = match.end() if start is None else start
            elif start is not None:
                spans.append((start, match.start()))
                start = None
        return spans if start is None else [*spans, (start, len(self.overview))]


def _inventions(sentence: str, facts: _Facts) -> Iterator[str]:
    for year, plural in _YEAR.findall(sentence):
        if year not in facts.years and not (plural and year[:3] in facts.decades):
            yield f"year: {year}{plural}"
    for match in _CREDIT.finditer(sentence):
        if not _credited(match["how"].casefold(), match["who"], facts):
            yield f"credit: {match[0]}"
    for name in _names(sentence):
        if not all(facts.know(word) for word in words(name)):
            yield f"name: {name}"
    if any(run in _LENT and run not in facts.runs for run in runs(words(sentence), 5)):
        yield "echo of an example"
    folded = sentence.casefold()
    for name in facts.foreign:
        if _CLAIMED_AS[name].search(folded):
            yield f"genre: {name}"


def _credited(how: str, who: str, facts: _Facts) -> bool:
    if how in ("novel", "book"):
        how = "written"
    # What the overview itself says about makers may be said again; a character's name there is no credit.
    if facts.tells(how, who.split()[0].casefold()):
        return True
    people = facts.people(how)
    return all(_stem(word) in people or word in people for word in words(who))


def _names(sentence: str) -> Iterator[str]:
    """Capitalised words and runs of them, but for the first word: a sentence starts with a capital whatever the word is."""
    tokens = list(WORD.finditer(sentence))
    run: list[str] = []
    for before, token in pairwise(tokens):
        word = token[0]
        capital = word[0].isupper() and word.casefold() not in _ORDINARY
        if run and not (capital and sentence[before.end() : token.start()] in (" ", ". ")):
            yield " ".join(run)
            run = []
        if capital:
            run.append(word)
    if run:
        yield " ".join(run)


def _genre_words(genre: str) -> tuple[str, ...]:
    plain = genre.casefold().strip()
    for names in _GENRES.values():
        if plain in names:
            return names
    return (plain,)


def _facts(item: Item) -> str:
    return f"{templates.facts_text(item)} {item.language or ''}"


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") else word


def _content(text: str) -> set[str]:
    """The words that carry meaning, by their first letters: 'explores' and 'exploring' are one."""
    return {word[:5] for word in words(text) if len(word) > 3 and word not in _EMPTY}


def _surname(name: str) -> str:
    return next(iter(words(name)[-1:]), "")


# What the worked examples told: said of another item, it is an echo.
_LENT = {
    run
    for example, answer in templates.EXAMPLES
    for text in (example.overview, whole_sentences(answer)[-1])
    for run in runs(words(text), 5)
}
