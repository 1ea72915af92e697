"""What a generated text may say: checked against the item's facts.

Finds years, names, credits and genres that the facts don't have, echoes of the worked examples, and facts that the text should carry
and doesn't. Works on words: an invented plot is found only where hardly any of its words are the facts' own. The words are those of
the language that is named (`matinee.languages`). Does not generate and does not decide what happens then: that is `models.enhancer`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

from matinee import languages
from matinee.items import Item
from matinee.languages import ENGLISH
from matinee.text import templates
from matinee.text.cleaning import MIN_WORDS, WORD, loops, runs, usable, whole_sentences, words

# Chosen on some 60 answers of the 270M base model: below it every plot was made up, above it most were a summary.
MIN_SUPPORT = 0.3

_YEAR = re.compile(r"(?<![\d.,:$£€#])(1[5-9]\d\d|20\d\d)(s?)\b(?![,:.]\d)")


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


def violations(text: str, item: Item, language: str = ENGLISH) -> tuple[str, ...]:
    """Everything in `text` that the facts don't bear out, and the required facts that it lacks: 'year: 1999', 'missing: genre'."""
    if not usable(text):
        return ("empty",)
    facts = _KnownFacts(item, language)
    problems = [problem for sentence in whole_sentences(text, language) for problem in _inventions(sentence, facts)]
    if loops(text, language):
        problems.append("loop")
    if _is_made_up(text, item, language):
        problems.append("unsupported")
    if adherence(text, item, language).genre is False:
        problems.append("missing: genre")
    return tuple(dict.fromkeys(problems))


def grounded_part(text: str, item: Item, language: str = ENGLISH) -> str:
    """The sentences of `text` that hold no invention; empty where nothing usable remains, or the rest is still made up."""
    facts = _KnownFacts(item, language)
    kept = " ".join(sentence for sentence in whole_sentences(text, language) if not any(_inventions(sentence, facts)))
    return kept if usable(kept) and not loops(kept, language) and not _is_made_up(kept, item, language) else ""


def adherence(text: str, item: Item, language: str = ENGLISH) -> Adherence:
    folded = text.casefold()
    text_words = set(words(text, language))
    genres = [name for genre in item.genres for name in _patterns_for(item, language).genre_words(genre)]
    return Adherence(
        genre=any(re.search(rf"\b{re.escape(name)}\b", folded) for name in genres) if genres else None,
        person=any(_surname(name, language) in text_words for name in item.names()) if item.names() else None,
        year=str(item.year) in folded if item.year is not None else None,
    )


def support(text: str, item: Item, language: str = ENGLISH) -> float:
    """The share of a text's content words, title and genres apart, that the facts have too: low where the plot is made up."""
    content = _patterns_for(item, language).content
    own = content(text) - content(f"{item.title} {item.kind} {' '.join(item.genres)}")
    return len(own & content(_facts(item, language))) / len(own) if own else 1.0


def _is_made_up(text: str, item: Item, language: str) -> bool:
    content = _patterns_for(item, language).content
    return len(content(item.overview)) >= MIN_WORDS and support(text, item, language) < MIN_SUPPORT


class _Patterns:
    """The data of a kind in the forms in which sentences are checked, made once for all items of that kind."""

    def __init__(self, kind_name: str, language_name: str) -> None:
        kind, language = languages.kind(kind_name, language_name), languages.language(language_name)
        particles = "|".join(map(re.escape, language.name_particles))
        how = "|".join(map(re.escape, [*kind.credits, *kind.credit_nouns])) or "(?!)"
        both, by = re.escape(language.conjunction), re.escape(language.credit_by)
        self.credit = re.compile(
            rf"\b(?P<how>{how})(?: {both} \w+)?(?: {by})? "
            rf"(?P<who>[A-ZÀ-Þ][\w'’.-]*(?:(?: (?:{particles}))* [A-ZÀ-Þ][\w'’.-]*)*)"
        )
        self.kind, self.language, self.words = kind, language, partial(words, language=language_name)
        self.credit_nouns = {noun.casefold(): word for noun, word in kind.credit_nouns.items()}
        self.empty_words = language.empty_words | kind.empty_words
        nouns = "|".join(map(re.escape, kind.kind_words))
        # A genre's name -> what names it in an item's facts, and what claims it in a text.
        self.named = {name: re.compile(rf"\b{re.escape(name)}\b") for names in kind.genres.values() for name in names}
        self.claimed = {
            name: self.named[name] if genre in kind.plain_genres else re.compile(rf"\b{re.escape(name)} (?:{nouns})\b")
            for genre, names in kind.genres.items()
            for name in names
        }
        # What the worked examples say: said of another item, it is an echo.
        self.example_runs = {
            run
            for example in kind.examples
            for text in (example.item.overview, whole_sentences(example.description)[-1])
            for run in runs(self.words(text), 5)
        }

    def genre_words(self, genre: str) -> tuple[str, ...]:
        """The words that name this genre of a catalogue."""
        plain = genre.casefold().strip()
        return next((names for names in self.kind.genres.values() if plain in names), (plain,))

    def content(self, text: str) -> set[str]:
        """The words that carry meaning, by their first letters: 'explores' and 'exploring' are one."""
        return {word[:5] for word in self.words(text) if len(word) > 3 and word not in self.empty_words}

    def stem(self, word: str) -> str:
        """A name without its ending."""
        return next((word.removesuffix(ending) for ending in self.language.endings if word.endswith(ending)), word)


@cache
def _patterns(kind_name: str, language: str) -> _Patterns:
    return _Patterns(kind_name, language)


def _patterns_for(item: Item, language: str) -> _Patterns:
    return _patterns(languages.kind_name(item.kind, language), language)


class _KnownFacts:
    """An item's facts in the forms in which sentences are checked against them, made once for all sentences."""

    def __init__(self, item: Item, language: str) -> None:
        text = _facts(item, language)
        patterns = _patterns_for(item, language)
        text_words = patterns.words(text)
        self.item, self.patterns = item, patterns
        self.words = frozenset(text_words)
        self.runs = frozenset(runs(text_words, 5))
        self.years = frozenset(year for year, _ in _YEAR.findall(text))
        self.decades = frozenset(year[:3] for year in self.years)
        self.overview = item.overview.casefold()
        own = {name for genre in item.genres for name in patterns.genre_words(genre)}
        folded = text.casefold()
        named = patterns.named.items() if item.genres else ()
        self.foreign = [name for name, pattern in named if name not in own and not pattern.search(folded)]
        self.credits, self.overview_credits = cache(self._credits), cache(self._overview_credits)

    def has_name(self, word: str) -> bool:
        """Whether a word of a name is in the facts, or all parts of it are ordinary or in the facts."""
        ordinary = self.patterns.language.ordinary_words
        known = not self.words.isdisjoint((word, self.patterns.stem(word)))
        return known or all(part in self.words or part in ordinary for part in word.split("-"))

    def people(self, how: str) -> set[str]:
        """The words of the names of those who did this."""
        roles = self.patterns.kind.credits[how]
        return {word for role, names in self.item.people.items() if role in roles for name in names for word in self.patterns.words(name)}

    def _overview_credits(self, how: str, name: str) -> bool:
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


def _inventions(sentence: str, facts: _KnownFacts) -> Iterator[str]:
    for year, plural in _YEAR.findall(sentence):
        if year not in facts.years and not (plural and year[:3] in facts.decades):
            yield f"year: {year}{plural}"
    for match in facts.patterns.credit.finditer(sentence):
        if not _is_credited(match["how"].casefold(), match["who"], facts):
            yield f"credit: {match[0]}"
    for name in _names(sentence, facts.patterns.language):
        if not all(facts.has_name(word) for word in facts.patterns.words(name)):
            yield f"name: {name}"
    if any(run in facts.patterns.example_runs and run not in facts.runs for run in runs(facts.patterns.words(sentence), 5)):
        yield "echo of an example"
    folded = sentence.casefold()
    for name in facts.foreign:
        if facts.patterns.claimed[name].search(folded):
            yield f"genre: {name}"


def _is_credited(how: str, who: str, facts: _KnownFacts) -> bool:
    how = facts.patterns.credit_nouns.get(how, how)
    # What the overview itself says about makers may be said again; a character's name there is no credit.
    if facts.overview_credits(how, who.split()[0].casefold()):
        return True
    people = facts.people(how)
    return all(facts.patterns.stem(word) in people or word in people for word in facts.patterns.words(who))


def _names(sentence: str, language: languages.LanguageWords) -> Iterator[str]:
    """Capitalised words and runs of them, but for the first word: a sentence starts with a capital whatever the word is."""
    tokens = list(WORD.finditer(sentence))
    run: list[str] = []
    for before, token in pairwise(tokens):
        word = token[0]
        capital = word[0].isupper() and word.casefold() not in language.ordinary_words
        if run and not (capital and sentence[before.end() : token.start()] in (" ", ". ")):
            if len(run) >= language.name_words:
                yield " ".join(run)
            run = []
        if capital:
            run.append(word)
    if len(run) >= language.name_words:
        yield " ".join(run)


def _facts(item: Item, language: str) -> str:
    return f"{templates.facts_text(item, language)} {item.language or ''}"


def _surname(name: str, language: str) -> str:
    return next(iter(words(name, language)[-1:]), "")
