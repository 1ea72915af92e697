"""`matinee.text.data`: a kind of item is a file, and an item of a kind without one is treated as a film."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from matinee.items import Item
from matinee.text import data, fact_checks, templates
from matinee.text.data import Kind, WorkedExample

GAME = Item(kind="Game", title="Mole Run", genres=("Racing",), people={"studio": ("Tin Hat",)}, overview="Moles race through tunnels.")
GAMES = data.kind("film").model_copy(
    update={
        "examples": (WorkedExample(item=GAME, description="Mole Run is a racing game. Moles race through seven dark tunnels."),),
        "genres": {"racing": ("racing", "racer"), "puzzle": ("puzzle",)},
        "plain_genres": frozenset({"puzzle"}),
        "kind_words": ("game",),
        "credits": {"coded": frozenset({"studio"})},
        "credit_nouns": {},
    }
)


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kinds = data._kinds() | {"game": GAMES}
    monkeypatch.setattr(data, "_kinds", lambda: kinds)
    yield
    fact_checks._patterns.cache_clear()


def test_an_unknown_kind_is_treated_as_a_film() -> None:
    assert data.kind("hologram") is data.kind("Film") is data.kind("film")
    assert (data.kind_name("hologram"), data.kind_name("../en")) == ("film", "film")


@pytest.mark.usefixtures("games")
def test_another_kind_has_its_own_examples_genres_and_credits() -> None:
    item = Item(kind="game", title="Crate", genres=("Racing",), people={"studio": ("Tin Hat",)}, overview="Crates slide through a depot.")
    prompt = templates.enhancer_prompt(item)
    assert "Mole Run" in prompt
    assert "The Salt Road" not in prompt
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
        Kind.model_validate(GAMES.model_dump() | {"plain_genres": ["opera"], "credit_nouns": {"aria": "sung"}})
