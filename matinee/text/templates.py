"""The one place where an item becomes text: the enhancer's prompt, the embedded text, a query's text, the sentence of a recommendation.

Pure functions of an item's facts, in a language (as the setting `language`; English by default). Sentences, words and worked examples are
data of `matinee.languages`. Does not generate, tokenise or embed, and adds no fact that the item does not have.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from jinja2 import Environment, StrictUndefined

from matinee import languages
from matinee.characters import tidy
from matinee.items import NO_KIND, Item
from matinee.languages import ENGLISH
from matinee.settings.index import Recipe

TEXT_VERSION = "3"
"""Part of every fingerprint. Change it with `raw_text`, `embedded_text`, `query_text` or `recipe.WEIGHT`: these make an item's text, a
query and the joined vector. It covers neither prompts nor descriptions nor the enhancer's weights. `Enhancer.info` has the digests of its
prompts, and a changed prompt gives new descriptions at the next ingest."""

Template = Literal["full", "plain"]
# Measured (docs/experiments.md): year and genres make a vector say less about the story, but people type them as words.
DENSE_TEMPLATE: Template = "plain"
SPARSE_TEMPLATE: Template = "full"

OVERVIEW_SHARES = (1.0, 0.6, 0.3, 0.1)
"""How much of an overview is tried in turn until a prompt fits."""

# Control characters, which no fact of an item has.
_LIKED, _TITLE = "\0", "\1"

_SENTENCE_END = ".!?…\"'”’)"


class ChatTokenizer(Protocol):
    """The part of a tokenizer that a chat prompt needs."""

    bos_token: str | None

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...


class Shared(NamedTuple):
    """What two items have in common, and nothing else: empty where it is not known."""

    genres: tuple[str, ...] = ()
    people: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    language: str | None = None
    decade: int | None = None


def facts_text(item: Item, language: str = ENGLISH) -> str:
    """Every fact of an item, one a line; what is empty is left out."""
    facts: list[tuple[str, str]] = [("title", one_line(item.title)), ("kind", one_line(item.kind))]
    facts += [("year", "" if item.year is None else str(item.year)), ("genres", ", ".join(item.genres))]
    facts += [(role, ", ".join(names)) for role, names in item.people.items()]
    facts.append(("language", language_name(item.language, language) if item.language else ""))
    facts += [(key, one_line(value if isinstance(value, str) else ", ".join(value))) for key, value in item.extra.items()]
    facts.append(("overview", one_line(item.overview)))
    labels = languages.language(language).labels
    return "\n".join(f"{labels.get(key) or _label(key)}: {value}" for key, value in facts if value)


def enhancer_prompt(
    item: Item, tokenizer: ChatTokenizer | None = None, *, examples: int = 2, facts: str | None = None, language: str = ENGLISH
) -> str:
    """What the enhancer reads. With a `tokenizer` that has a chat template it is a chat turn, without one a few-line form to be continued.

    `examples` worked examples precede a form; `facts` replaces `facts_text(item)` (a caller that had to shorten it).
    """
    text = facts_text(item, language) if facts is None else facts
    if tokenizer is not None:
        content = f"{_sentence('ask', language, kind=one_line(item.kind))}\n\n{text}"
        turn = str(tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True))
        # Gemma's template writes it, and so does the tokenizer when it reads the prompt: twice is not what the model was trained on.
        return turn.removeprefix(tokenizer.bos_token or "")
    answer = languages.language(language).answer
    worked = languages.kind(item.kind, language).examples[:examples]
    forms = [f"{facts_text(example.item, language)}\n{answer} {example.description}" for example in worked]
    return "\n\n".join([*forms, f"{text}\n{answer}"])


def shorten_overview(item: Item, share: float) -> Item:
    """The item with this share of its overview's words, from the start: for a prompt that is too long."""
    words = item.overview.split()
    return item if share == 1 else item.model_copy(update={"overview": " ".join(words[: int(len(words) * share)])})


def lead(item: Item, language: str = ENGLISH) -> str:
    """The first words of a description, from the facts: a base model that continues them keeps to the subject."""
    kind = languages.kind(item.kind, language)
    named = [genre for genre in item.genres if genre.casefold() not in kind.unnamed_genres][:3]
    return _sentence("lead", language, **_facts(item, language, names=2) | {"genres": named}, lead_end=kind.lead_end)


def training_completion(text: str) -> str:
    """What follows a form prompt in training: the form of the answer that `enhancer_prompt` asks for."""
    return f" {one_line(text)}"


def raw_text(item: Item, template: Template = DENSE_TEMPLATE) -> str:
    """`full`: 'Title (year). Genres. Overview'; `plain`: 'Title. Overview'."""
    title = one_line(item.title)
    if template == "plain":
        return join_sentences(title, item.overview)
    head = f"{title} ({item.year})" if item.year is not None else title
    return join_sentences(head, ", ".join(item.genres), item.overview)


def embedded_text(item: Item, description: str | None, recipe: Recipe, *, template: Template = DENSE_TEMPLATE) -> str:
    """The text that is embedded (`both`: see `text.recipe`), or with `SPARSE_TEMPLATE` the one whose words are found.

    An item without a description (not enriched yet) has its raw text under every recipe.
    """
    raw = raw_text(item, template)
    text = one_line(description or "")
    if recipe == "raw" or not text:
        return raw
    if recipe == "both":
        return join_sentences(raw, text)
    # A description that does not name its title would be found by nobody who types the title.
    title = one_line(item.title)
    return text if title.casefold() in text.casefold() else join_sentences(title, text)


def query_text(text: str) -> str:
    """A user's words as they are embedded: white space in order, nothing added."""
    return one_line(tidy(text))


def reason_sentence(liked_title: str, title: str, shared: Shared, language: str = ENGLISH) -> str:
    """'If you enjoyed A, you might love B for its ... story and similar ... execution': only from what both really share."""
    spoken = _foreign(shared.language, language) if shared.language else None
    makers = tuple(_makers(shared.people, 2, language)) if shared.people else ()
    sentence = _reason(shared.genres[:2], spoken, shared.decade, makers, language)
    return sentence.replace(_LIKED, one_line(liked_title)).replace(_TITLE, one_line(title))


@lru_cache(maxsize=1024)
def _foreign(code: str, language: str) -> str | None:
    """The name of a language, None for the one in which it is said."""
    return None if code.casefold() in languages.language(language).own_names else language_name(code, language)


@lru_cache(maxsize=4096)
def _reason(genres: tuple[str, ...], spoken: str | None, decade: int | None, makers: tuple[str, ...], language: str) -> str:
    """The sentence with places for the titles: few facts are shared by many pairs, and a template takes as long as a search."""
    return _sentence(
        "reason",
        language,
        liked=_LIKED,
        title=_TITLE,
        genres=genres,
        language=spoken,
        decade=decade,
        makers=[*makers],
    )


def template_description(item: Item, language: str = ENGLISH) -> str:
    """A description made of the facts alone, for where a model's answer can't be used."""
    return join_sentences(_sentence("facts", language, **_facts(item, language, names=3)), item.overview)


def language_name(code: str, language: str = ENGLISH) -> str:
    return languages.language(language).languages.get(code.casefold(), code)


def one_line(text: str) -> str:
    return " ".join(text.split())


def join_words(words: Iterable[str], conjunction: str) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    return f" {conjunction} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def join_sentences(*parts: str) -> str:
    """Parts as sentences: empty ones left out, each ended once."""
    texts = [one_line(part) for part in parts]
    return " ".join(
        text if text[-1] in _SENTENCE_END and _ends(text) else f"{text.rstrip(' .,;:')}." for text in texts if text.strip(" .,;:")
    )


def _ends(text: str) -> bool:
    # A closing quote or bracket ends a sentence only where the sentence ended inside it.
    return bool(re.search(r"[.!?…][\"'”’)]*$", text))


def _facts(item: Item, language: str, names: int) -> dict[str, Any]:
    """What a sentence about an item may say; of each role so many names."""
    kind = one_line(item.kind) if item.kind != NO_KIND else ""
    return {
        "title": one_line(item.title),
        "year": item.year,
        "genres": item.genres,
        "kind": kind,
        "kind_name": languages.language(language).kinds.get(kind.casefold(), ""),
        "makers": _makers(item.people, names, language),
    }


def _makers(people: Mapping[str, Sequence[str]], names: int, language: str) -> list[str]:
    words = languages.language(language)
    how = {role: words.makers.get(role) or words.other_maker.format(role=_label(role).lower()) for role in people}
    return [f"{how[role]} {join_words(who[:names], words.conjunction)}" for role, who in people.items() if who]


def _sentence(pattern: str, language: str, /, **facts: object) -> str:
    return _pattern(pattern, language)(**facts)


@cache
def _pattern(pattern: str, language: str) -> Callable[..., str]:
    """A sentence of a language, compiled."""
    words = languages.language(language)
    # Plain text: the page or program that shows it must escape it.
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    environment.filters["listed"] = partial(join_words, conjunction=words.conjunction)
    return environment.from_string(getattr(words.sentences, pattern)).render


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize()
