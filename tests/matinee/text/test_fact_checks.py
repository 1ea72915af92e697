"""`matinee.text.fact_checks`: what a text may say of an item."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.items import Item
from matinee.text import cleaning, fact_checks
from matinee.text.fact_checks import Adherence

FILM = Item(
    kind="film",
    title="Inception",
    year=2010,
    genres=("Action", "Science Fiction"),
    people={"director": ("Christopher Nolan",), "cast": ("Leonardo DiCaprio",)},
    overview="Cobb, a skilled thief who steals secrets from dreams, is offered a chance to go home if he plants an idea in Saito's rival.",
)
GOOD = "Inception (2010) is an action film directed by Christopher Nolan about Cobb, a thief who steals secrets from dreams."


def test_a_grounded_text_has_no_violations() -> None:
    assert fact_checks.violations(GOOD, FILM) == ()


@pytest.mark.parametrize(
    ("addition", "violation"),
    [
        ("It came out in 1999.", "year: 1999"),
        ("It belongs to the 1980s.", "year: 1980s"),
        ("It was directed by Steven Spielberg.", "credit: directed by Steven Spielberg."),
        ("It was directed by Leonardo DiCaprio.", "credit: directed by Leonardo DiCaprio."),
        ("It stars Tom Hanks.", "name: Tom Hanks"),
        ("The thief meets Arthur Penrose there.", "name: Arthur Penrose"),
        ("It is a horror story.", "genre: horror"),
        ("It is a romantic film.", "genre: romantic"),
        ("The carter and the child grow close on the way.", "echo of an example"),
    ],
)
def test_inventions_are_found_and_only_their_sentence_is_removed(addition: str, violation: str) -> None:
    text = f"{GOOD} {addition}"
    assert violation in fact_checks.violations(text, FILM)
    assert fact_checks.grounded_part(text, FILM) == GOOD


@pytest.mark.parametrize(
    "addition",
    [
        "It belongs to the 2010s.",
        "Leonardo DiCaprio plays Cobb.",
        "It stars Leonardo DiCaprio.",
        "DiCaprio's thief wants to go home.",
        "Saito has 1,500 secrets.",
    ],
)
def test_what_the_facts_bear_out_may_be_said(addition: str) -> None:
    assert fact_checks.violations(f"{GOOD} {addition}", FILM) == ()


def test_a_made_up_plot_is_found() -> None:
    text = "Inception is an action film about a young family that must survive the winter after an oil spill near their village."
    assert fact_checks.violations(text, FILM) == ("unsupported",)
    assert fact_checks.grounded_part(text, FILM) == ""


def test_a_missing_genre_counts_but_its_text_stays() -> None:
    text = "Inception is about a thief who steals secrets from dreams."
    assert fact_checks.violations(text, FILM) == ("missing: genre",)
    assert fact_checks.grounded_part(text, FILM) == text


@pytest.mark.parametrize("text", ["", "A film.", "...", "\u200b"])
def test_an_empty_answer_is_a_violation(text: str) -> None:
    assert fact_checks.violations(text, FILM) == ("empty",)


def test_going_round_is_a_violation() -> None:
    text = "A thief steals the dreams and " + "a thief steals the dreams and " * 3 + "goes home in this action film."
    assert "loop" in fact_checks.violations(text, FILM)
    assert fact_checks.grounded_part(text, FILM) == ""


def test_adherence_is_the_share_of_required_facts() -> None:
    assert fact_checks.adherence(GOOD, FILM) == Adherence(genre=True, person=True, year=True)
    assert fact_checks.adherence("A sci-fi thief.", FILM) == Adherence(genre=True, person=False, year=False)
    assert fact_checks.adherence("A sci-fi thief.", FILM).score == pytest.approx(1 / 3)
    assert fact_checks.adherence("Anything.", Item(title="X")).score == 1


@given(st.text(max_size=200))
def test_no_cleaned_text_is_too_odd_to_check(answer: str) -> None:
    fact_checks.violations(cleaning.clean(answer), FILM)
