"""The one place where an item becomes text: the enhancer's prompt, the embedded text, a query's text, the sentence of a recommendation.

Pure functions of an item's facts; the words of the language and the worked examples are `data`. Does not generate, tokenise or embed,
and adds no fact that the item does not have. Any change to a template or to its data changes vectors, so it must change `TEXT_VERSION`,
which is part of every fingerprint.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from matinee.characters import tidy
from matinee.items import Item
from matinee.settings.tree import Recipe
from matinee.text import data

TEXT_VERSION = "3"

Template = Literal["full", "plain"]
# Measured (docs/experiments.md): year and genres blur what a vector says of the story, but they are words that people type.
DENSE_TEMPLATE: Template = "plain"
SPARSE_TEMPLATE: Template = "full"

ANSWER = data.language().answer
# The field that follows in the template: where the base model starts a next example, the answer has ended.
NEXT_FIELD = "Title:"

_SENTENCE_END = ".!?…\"'”’)"


class ChatTokenizer(Protocol):
    """The part of a tokenizer that a chat prompt needs."""

    bos_token: str | None

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Shared:
    """What two items have in common, and nothing else: empty where it is not known."""

    genres: tuple[str, ...] = ()
    people: dict[str, tuple[str, ...]] = field(default_factory=dict)
    language: str | None = None
    decade: int | None = None


def facts_text(item: Item) -> str:
    """Every fact of an item, one a line; what is empty is left out."""
    lines = [f"{NEXT_FIELD} {one_line(item.title)}", f"Kind: {one_line(item.kind)}"]
    if item.year is not None:
        lines.append(f"Year: {item.year}")
    if item.genres:
        lines.append(f"Genres: {', '.join(item.genres)}")
    lines += [f"{_label(role)}: {', '.join(names)}" for role, names in item.people.items() if names]
    if item.language:
        lines.append(f"Language: {language_name(item.language)}")
    for key, value in item.extra.items():
        text = one_line(value if isinstance(value, str) else ", ".join(value))
        if text:
            lines.append(f"{_label(key)}: {text}")
    if item.overview:
        lines.append(f"Overview: {one_line(item.overview)}")
    return "\n".join(lines)


def enhancer_prompt(item: Item, tokenizer: ChatTokenizer | None = None, *, examples: int = 2, facts: str | None = None) -> str:
    """What the enhancer reads. With a `tokenizer` that has a chat template it is a chat turn, without one a few-line form to be continued.

    `examples` worked examples precede a form; `facts` replaces `facts_text(item)` (a caller that had to shorten it).
    """
    text = facts_text(item) if facts is None else facts
    if tokenizer is not None:
        content = f"{data.language().ask.format(kind=one_line(item.kind))}\n\n{text}"
        turn = str(tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True))
        # Gemma's template writes it, and so does the tokenizer when it reads the prompt: twice is not what the model was trained on.
        return turn.removeprefix(tokenizer.bos_token or "")
    worked = data.kind(item.kind).examples[:examples]
    forms = [f"{facts_text(example.item)}\n{ANSWER} {example.description}" for example in worked]
    return "\n\n".join([*forms, f"{text}\n{ANSWER}"])


def lead(item: Item) -> str:
    """The first words of a description, from the facts: a base model that continues them keeps to the subject."""
    genres = [genre.lower() for genre in item.genres if genre.casefold() != "tv movie"][:3]
    kind = one_line(item.kind).lower() if item.kind != "item" else "" if genres else "title"
    what = " ".join(part for part in (listed(genres), kind) if part)
    role = next((role for role, names in item.people.items() if names), None)
    by = _made(role, item.people[role][:2]) if role else ""
    year = f" ({item.year})" if item.year is not None else ""
    article = "an" if what[0] in "aeiou" else "a"
    return " ".join(part for part in (f"{one_line(item.title)}{year} is {article} {what}", by, "about") if part)


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


def reason_sentence(liked_title: str, title: str, shared: Shared) -> str:
    """'If you enjoyed A, you might love B for its ... story and similar ... execution': only from what both really share."""
    start = f"If you enjoyed {one_line(liked_title)}, you might love {one_line(title)} for its"
    era = f"{shared.decade}s" if shared.decade is not None else ""
    # English is what most catalogues are in: to share it says nothing.
    spoken = f"{language_name(shared.language)}-language" if shared.language and shared.language.casefold() not in ("en", "english") else ""
    manner = " ".join(["similar", *filter(None, (spoken, era)), "execution"])
    story = f"{listed([genre.lower() for genre in shared.genres[:2]])} story" if shared.genres else "story"
    makers = [_made(role, names[:2]) for role, names in shared.people.items() if names]
    if makers:
        return f"{start} {story} and {manner}, both {listed(makers)}."
    if spoken or era:
        return f"{start} {story} and {manner}."
    return f"{start} {story}." if shared.genres else f"{start} similar story and themes."


def template_description(item: Item) -> str:
    """A description made of the facts alone, for where a model's answer can't be used."""
    genres = listed([genre.lower() for genre in item.genres])
    year = f" ({item.year})" if item.year is not None else ""
    kind = one_line(item.kind) if item.kind != "item" else ""
    # "film: drama and war" needs no article, so it is right for any genre, and in any number.
    what = f"{kind or 'genre'}: {genres}" if genres else kind
    by = [_made(role, names[:3]) for role, names in item.people.items() if names]
    head = ", ".join(part for part in (f"{one_line(item.title)}{year}", what, *by) if part)
    return join_sentences(head, item.overview)


def language_name(language: str) -> str:
    return data.language().languages.get(language.casefold(), language)


def one_line(text: str) -> str:
    return " ".join(text.split())


def listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def join_sentences(*parts: str) -> str:
    """Parts as sentences: empty ones left out, each ended once."""
    texts = [one_line(part) for part in parts]
    return " ".join(
        text if text[-1] in _SENTENCE_END and _ends(text) else f"{text.rstrip(' .,;:')}." for text in texts if text.strip(" .,;:")
    )


def _ends(text: str) -> bool:
    # A closing quote or bracket ends a sentence only where the sentence ended inside it.
    return bool(re.search(r"[.!?…][\"'”’)]*$", text))


def _made(role: str, names: Sequence[str]) -> str:
    return f"{data.language().makers.get(role, f'with {_label(role).lower()}')} {listed(names)}"


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize()
