"""What the prompts, the cleaning and the fact checks know of a language and of a kind of item, as data.

    en.yaml        a language (`Language`)
    en.film.yaml   a kind of item in that language (`Kind`)

Another kind is one more file here, and so is another language. How sentences are put together is code (`templates`). Whoever changes
what a prompt is made of changes `templates.TEXT_VERSION`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from matinee.items import Item

LANGUAGE = "en"
DEFAULT_KIND = "film"
"""A kind without a file of its own is treated as this one."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkedExample(_Data):
    """A made-up item, and a description of it as it should be."""

    item: Item
    description: str


class Language(_Data):
    """A language, whatever the items are. Words are in lower case where they are compared with folded text."""

    ask: str = Field(description="what a chat model is asked; {kind} is the item's kind")
    answer: str = Field(description="what stands before the description in a form")
    makers: Mapping[str, str] = Field(description="role -> how a reason names it: 'directed by'")
    languages: Mapping[str, str] = Field(description="language code -> name")
    abbreviations: tuple[str, ...] = Field(description="words whose full stop ends no sentence")
    form_fields: tuple[str, ...] = Field(description="fields of the form that an answer may begin to repeat")
    ordinary_words: frozenset[str] = Field(description="words that may be capitalised and are no name")
    empty_words: frozenset[str] = Field(description="words of more than three letters that carry no meaning")
    name_particles: tuple[str, ...] = Field(description="small words inside a person's name")


class Kind(_Data):
    """What texts about one kind of item are like."""

    examples: tuple[WorkedExample, ...] = Field(description="worked examples that a base model is shown before the item")
    genres: Mapping[str, tuple[str, ...]] = Field(description="genre of a catalogue -> the words that name it in a text")
    plain_genres: frozenset[str] = Field(description="genres whose words are a claim wherever they stand")
    kind_words: tuple[str, ...] = Field(description="nouns after which a genre's word is a claim: 'war film'")
    credits: Mapping[str, frozenset[str]] = Field(description="word that credits somebody -> roles that bear it out")
    credit_nouns: Mapping[str, str] = Field(description="noun that credits -> the word of `credits` that it stands for")

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = {*self.plain_genres} - self.genres.keys() | {*self.credit_nouns.values()} - self.credits.keys()
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: plain_genres must be in genres, and credit_nouns name words of credits")
        return self


@cache
def language(name: str = LANGUAGE) -> Language:
    return Language.model_validate(_read(name))


def kind(name: str) -> Kind:
    return _kinds()[kind_name(name)]


def kinds() -> list[str]:
    """The kinds that have data of their own."""
    return sorted(_kinds())


def kind_name(name: str) -> str:
    """The kind whose data an item of this kind uses."""
    return name.casefold() if name.casefold() in _kinds() else DEFAULT_KIND


@cache
def _kinds() -> dict[str, Kind]:
    stems = [path.stem for path in Path(__file__).parent.glob(f"{LANGUAGE}.*.yaml")]
    return {stem.removeprefix(f"{LANGUAGE}."): Kind.model_validate(_read(stem)) for stem in stems}


def _read(stem: str) -> object:
    return yaml.safe_load((Path(__file__).parent / f"{stem}.yaml").read_text(encoding="utf-8"))
