"""What Matinee knows of a language and of a kind of item, as data.

    english.yaml        a language (`LanguageWords`), with what holds for any kind of item (`LanguageWords.any_kind`)
    english.film.yaml   a kind of item in that language (`KindWords`)
    all.titles.yaml     what stands around titles, in every language at once (`TitleWords`)
    all.catalogues.yaml how catalogues name their columns and write what is not known (`CatalogueWords`)

Another language is one more file here, and so is another kind. The setting `language` names the language. `TEXT_VERSION` says when
a change of these files needs a new index; a changed prompt alone gives new descriptions (`models.descriptions`).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from matinee.items import Item

ENGLISH = "english"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkedExample(_Data):
    """A made-up item, and a description of it as it should be."""

    item: Item
    description: str


class KindWords(_Data):
    """What texts about one kind of item are like."""

    also: frozenset[str] = Field(frozenset(), description="other names of this kind in catalogues, in lower case")
    lead_end: str = Field(description="the last word of the beginning that a base model continues: 'about'")
    examples: tuple[WorkedExample, ...] = Field(description="worked examples that a base model is shown before the item")
    genres: Mapping[str, tuple[str, ...]] = Field({}, description="genre of a catalogue -> the words that name it in a text")
    plain_genres: frozenset[str] = Field(frozenset(), description="genres whose words are a claim wherever they stand")
    unnamed_genres: frozenset[str] = Field(frozenset(), description="genres that a sentence would not name")
    kind_words: tuple[str, ...] = Field((), description="nouns after which a genre's word is a claim: 'war film'")
    empty_words: frozenset[str] = Field(frozenset(), description="words that carry no meaning in texts about this kind")
    credits: Mapping[str, frozenset[str]] = Field({}, description="word that credits somebody -> roles that bear it out")
    credit_nouns: Mapping[str, str] = Field({}, description="noun that credits -> the word of `credits` that it stands for")

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = {*self.plain_genres} - self.genres.keys() | {*self.credit_nouns.values()} - self.credits.keys()
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: plain_genres must be in genres, and credit_nouns name words of credits")
        return self


class Sentences(_Data):
    """Jinja2 patterns. `listed` joins words as the language does: 'a, b and c'."""

    ask: str = Field(description="what a chat model is asked, of `kind`")
    lead: str = Field(
        description="how a description begins, of `title`, `year`, `genres`, `kind`, `kind_name`, `makers` (a phrase for each role) and "
        "`lead_end`"
    )
    facts: str = Field(description="a description made of the facts alone, without the overview: as `lead`, without `lead_end`")
    reason: str = Field(
        description="why `title` is recommended to who likes `liked`: by `genres`, `language`, `decade`, `makers`, which are empty or None "
        "where the two do not share them"
    )


class QueryForms(_Data):
    """What people type, for training pairs that are made of a catalogue's columns."""

    like: str = Field(description="of {title}")
    era: str = Field(description="of {decade}")
    about: tuple[str, ...] = Field(description="of {era}, {genres}, {kind} and {about}")


class TitleSeries(_Data):
    """How titles of one series differ, in lower case."""

    articles: tuple[str, ...]
    parts: tuple[str, ...] = Field(description="words before a number: 'part'")
    numbers: tuple[str, ...]
    sequels: tuple[str, ...] = Field(description="last words of a sequel's title: 'returns'")


class TitleWords(_Data):
    """What stands around a title, by the language it comes from: the titles of one catalogue are in many."""

    leading_articles: Mapping[str, tuple[str, ...]] = Field(description="what a title is compared without, as folded text: 'the'")
    trailing_articles: Mapping[str, tuple[str, ...]] = Field(description="the same at a title's end: 'Grid, The'")
    moved_articles: Mapping[str, tuple[str, ...]] = Field(description="what catalogues put behind a title and a comma, as it is written")
    parts: Mapping[str, tuple[str, ...]] = Field(description="words before the number of a part, in the brackets behind a title: 'vol'")
    other_name: Mapping[str, tuple[str, ...]] = Field(description="what says that the brackets hold another name: 'aka'")
    signs: Mapping[str, str] = Field(description="sign -> the word that it is compared as, in titles of any language")


class CatalogueWords(_Data):
    """How catalogues write, in any language. Names of columns are in lower case, without separators."""

    columns: Mapping[str, tuple[str, ...]] = Field(description="target -> names of columns, best first")
    roles: Mapping[str, tuple[str, ...]] = Field(description="role of people -> names of columns, best first")
    years_outside_ids: tuple[str, ...] = Field(description="names of years that count for no id")
    late_titles: tuple[str, ...] = Field(description="names of a title where no column has one of `columns`")
    numbered: Mapping[str, str] = Field(description="word before a number -> target of these columns: 'star1'")
    placeholders: frozenset[str] = Field(description="what is written for a value that is not known, in lower case")
    span_words: tuple[str, ...] = Field(description="what stands between the two ends of a span of dates")
    circa_words: tuple[str, ...] = Field(description="what stands before a year that is not certain, or that of a copyright")
    name_suffixes: frozenset[str] = Field(description="what belongs to the name before a comma, in lower case: 'jr.'")
    first_language: str = Field(description="code of the language that is taken of a text in several")
    true_words: frozenset[str] = Field(description="how a column says yes, in lower case")
    false_words: frozenset[str] = Field(description="how a column says no, in lower case")


class LanguageWords(_Data):
    """A language, whatever the items are. Words are in lower case where they are compared with folded text."""

    sentences: Sentences
    answer: str = Field(description="what stands before the description in a form")
    conjunction: str = Field(description="what joins the last two words of a list: 'and'")
    credit_by: str = Field(description="what may stand between a credit and a name: 'by'")
    labels: Mapping[str, str] = Field({}, description="field or role -> its label in a form; any other is its own")
    kinds: Mapping[str, str] = Field({}, description="kind of an item -> `kind_name` of the sentences: with its article, for one")
    makers: Mapping[str, str] = Field(description="role -> how a sentence names it: 'directed by'")
    other_maker: str = Field(description="the same for any other {role}")
    own_names: frozenset[str] = Field(description="how catalogues write this language: to share it says nothing")
    languages: Mapping[str, str] = Field(description="language code -> name")
    abbreviations: tuple[str, ...] = Field(description="words whose full stop ends no sentence")
    form_fields: tuple[str, ...] = Field(description="fields of the form that an answer may begin to repeat")
    ordinary_words: frozenset[str] = Field(description="words that may be capitalised and are no name")
    name_words: int = Field(1, description="capitalised words in a row that are a name; 2 where every noun has a capital")
    empty_words: frozenset[str] = Field(description="words of more than three letters that carry no meaning")
    endings: tuple[str, ...] = Field(description="endings of a name: 'Nolans'")
    possessives: tuple[str, ...] = Field((), description="endings of any word that are no part of it: `'s`")
    name_particles: tuple[str, ...] = Field(description="small words inside a person's name")
    queries: QueryForms
    series: TitleSeries
    any_kind: KindWords = Field(description="of every kind that has no file of its own")


def names() -> list[str]:
    """The languages that have a file."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml") if "." not in path.stem)


@cache
def title_words() -> TitleWords:
    """What stands around titles of any language."""
    return TitleWords.model_validate(_read("all.titles"))


@cache
def catalogue_words() -> CatalogueWords:
    """How catalogues of any language write."""
    return CatalogueWords.model_validate(_read("all.catalogues"))


@cache
def language(name: str = ENGLISH) -> LanguageWords:
    """The data of a language that has a file; the settings refuse any other."""
    return LanguageWords.model_validate(_read(name))


def kind(name: str, language: str = ENGLISH) -> KindWords:
    """What texts about an item of this kind are like."""
    return _kinds(language)[kind_name(name, language)]


def kinds(language: str = ENGLISH) -> list[str]:
    """The kinds that have data of their own, and "" for all others."""
    return sorted(_kinds(language))


def kind_name(name: str, language: str = ENGLISH) -> str:
    """The kind whose data an item of this kind uses."""
    folded = name.casefold()
    return next((known for known, data in _kinds(language).items() if folded and folded in (known, *data.also)), "")


@cache
def _kinds(name: str) -> dict[str, KindWords]:
    stems = [path.stem for path in Path(__file__).parent.glob(f"{name}.*.yaml")]
    return {"": language(name).any_kind} | {stem.removeprefix(f"{name}."): KindWords.model_validate(_read(stem)) for stem in stems}


def _read(stem: str) -> object:
    return yaml.safe_load((Path(__file__).parent / f"{stem}.yaml").read_text(encoding="utf-8"))
