"""`matinee.languages`: a language is a file, and so is a kind of item. Every file has what every text needs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from matinee import languages
from matinee.evaluation.splits import franchise
from matinee.items import Item
from matinee.languages import KindWords
from matinee.text import cleaning, fact_checks, templates
from matinee.text.templates import Shared

FILES = Path(languages.__file__).parent

GAME = """
lead_end: in which
examples:
- item: {kind: Game, title: Mole Run, genres: [Racing], people: {studio: [Tin Hat]}, overview: Moles race through tunnels.}
  description: Mole Run is a racing game. Moles race through seven dark tunnels.
genres: {racing: [racing, racer], puzzle: [puzzle]}
plain_genres: [puzzle]
kind_words: [game]
credits: {coded: [studio]}
"""
FULL = Item(
    kind="film",
    title="Der Himmel",
    year=1987,
    genres=("Drama", "Krimi"),
    people={"director": ("Ana Ruiz",), "cast": ("Ben Ott", "Eva Lind")},
    language="fr",
    overview="Ein Müller bringt sein Mehl über den Pass und findet eine Karte.",
)


@pytest.fixture
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file beside the product's."""
    for path in FILES.glob("*.yaml"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "english.game.yaml").write_text(GAME)
    monkeypatch.setattr(languages, "__file__", str(tmp_path / "__init__.py"))
    caches = (languages.language, languages._kinds, fact_checks._patterns)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_an_unknown_kind_has_the_data_of_any_kind() -> None:
    assert languages.kind("hologram") is languages.kind("item")
    assert languages.kind("item") == languages.language().any_kind
    assert (languages.kind_name("hologram"), languages.kind_name("../english"), languages.kind_name("")) == ("", "", "")
    assert {languages.kind_name(name) for name in ("FILM", "Movie", "tvSeries", "TV Show", "short")} == {"film"}
    bread = Item(kind="bread", title="Rye", genres=("Dark",), overview="A loaf of rye with caraway seeds.")
    prompt = templates.enhancer_prompt(bread)
    assert not any(word in prompt for word in ("Salt Road", "film", "story", "Director"))
    assert templates.lead(bread) == "Rye is a dark bread that"
    assert fact_checks.violations("Rye is a dark bread that has caraway seeds, a loaf of rye.", bread) == ()


def test_a_book_is_no_film() -> None:
    book = Item(kind="novel", title="Dune", genres=("Science Fiction",), people={"author": ("F. Herbert",)}, overview="A desert planet.")
    prompt = templates.enhancer_prompt(book)
    assert "The Ferry Clerk" in prompt
    assert "film" not in prompt
    assert templates.lead(book) == "Dune is a science fiction novel written by F. Herbert about"
    text = "Dune is a science fiction novel about a desert planet, illustrated by Ann Bell."
    assert "credit: illustrated by Ann Bell." in fact_checks.violations(text, book)


@pytest.mark.usefixtures("games")
def test_another_kind_has_its_own_examples_genres_and_credits() -> None:
    item = Item(kind="game", title="Crate", genres=("Racing",), people={"studio": ("Tin Hat",)}, overview="Crates slide through a depot.")
    prompt = templates.enhancer_prompt(item)
    assert "Mole Run" in prompt
    assert "Lamp and Ladder" not in prompt
    text = "Crate is a racer in which crates slide through a depot, coded by {}. It is a {}."
    assert fact_checks.violations(text.format("Tin Hat", "game"), item) == ()
    assert fact_checks.violations(text.format("Ann Bell", "puzzle"), item) == (
        "credit: coded by Ann Bell.",
        "name: Ann Bell",
        "genre: puzzle",
    )
    assert "echo of an example" in fact_checks.violations(f"{text.format('Tin Hat', 'game')} Moles race through seven dark tunnels.", item)
    assert "The Salt Road" in templates.enhancer_prompt(item.model_copy(update={"kind": "film"}))


def test_a_file_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="opera, sung"):
        KindWords.model_validate(yaml.safe_load(GAME) | {"plain_genres": ["opera"], "credit_nouns": {"aria": "sung"}})


@pytest.mark.parametrize("item", [FULL, Item(kind="bread", title="Rye"), Item(title="X", genres=("Drama",))])
@pytest.mark.parametrize("language", languages.names())
def test_every_language_has_every_sentence(language: str, item: Item) -> None:
    texts = [templates.lead(item, language), templates.template_description(item, language)]
    texts += [templates.reason_sentence("A", "B", shared, language) for shared in (Shared(), Shared(genres=item.genres, decade=1980))]
    for text in texts:
        assert text == " ".join(text.split())
        assert not any(hole in text for hole in ("None", "()", "{", " ,", " .", "  "))
    assert templates.enhancer_prompt(item, language=language).count(languages.language(language).answer) == 3


@pytest.mark.parametrize(("language", "kind"), [(language, kind) for language in languages.names() for kind in languages.kinds(language)])
def test_worked_examples_pass_their_own_checks(language: str, kind: str) -> None:
    for example in languages.kind(kind, language).examples:
        item = example.item
        assert example.description.startswith(templates.lead(item, language))
        problems = fact_checks.violations(cleaning.clean(example.description, language), item, language)
        assert [problem for problem in problems if problem != "echo of an example"] == []
        assert fact_checks.adherence(example.description, item, language).score == 1


def test_german() -> None:
    assert templates.facts_text(FULL, "german").splitlines()[:7] == [
        "Titel: Der Himmel",
        "Art: film",
        "Jahr: 1987",
        "Genres: Drama, Krimi",
        "Regie: Ana Ruiz",
        "Besetzung: Ben Ott, Eva Lind",
        "Sprache: Französisch",
    ]
    about = "ist ein Film aus den Genres Drama und Krimi unter der Regie von Ana Ruiz. Es geht um"
    assert templates.lead(FULL, "german") == f"Der Himmel (1987) {about}"
    shared = Shared(genres=("Drama",), people={"director": ("Ana Ruiz",)}, language="fr", decade=1980)
    assert templates.reason_sentence("Eins", "Zwei", shared, "german") == (
        "Wenn dir Eins gefallen hat, könnte dir auch Zwei gefallen: "
        "beide aus dem Genre Drama, auf Französisch, aus den 1980er-Jahren und unter der Regie von Ana Ruiz."
    )
    same = Shared(genres=("Drama",), language="de")
    assert "Deutsch" not in templates.reason_sentence("Eins", "Zwei", same, "german")
    assert franchise("Die Wüste kehrt zurück", "german") == franchise("Die Wüste, Teil 2", "german") == "wuste"


def test_a_german_sentence_is_whole_for_any_role_and_any_genre() -> None:
    game = Item(kind="Film", title="Y", genres=("TV Movie", "Drama"), people={"designer": ("A B",), "stunt_double": ("C D", "E F")})
    assert templates.lead(game, "german") == "Y ist ein Film aus dem Genre Drama mit designer A B. Es geht um"
    assert templates.lead(game.model_copy(update={"genres": ("TV Movie",)}), "german") == "Y ist ein Film mit designer A B. Es geht um"
    shared = Shared(people={"designer": ("A B",)})
    assert templates.reason_sentence("Eins", "Zwei", shared, "german").endswith("gefallen: beide mit designer A B.")
    for language in languages.names():
        other = languages.language(language).other_maker
        assert re.fullmatch(r"\w[\w ]*\{role\}", other), "words that a name can follow inside a sentence"


def test_german_is_checked_with_its_capitals() -> None:
    text = f"{templates.lead(FULL, 'german')} einen Müller, der sein Mehl über den Pass bringt und eine Karte findet."
    assert fact_checks.violations(text, FULL, "german") == ()
    for addition, violation in (
        ("Regie von Tom Hanks führt zum Ziel.", "credit: Regie von Tom Hanks"),
        ("Darin trifft der Müller auf Arthur Penrose.", "name: Arthur Penrose"),
        ("Es ist ein Horrorfilm.", "genre: horrorfilm"),
        ("Er spielt im Jahr 1999.", "year: 1999"),
    ):
        assert violation in fact_checks.violations(f"{text} {addition}", FULL, "german")
