"""`matinee.text.cleaning`: how a model's answer becomes plain prose."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee import languages
from matinee.text import cleaning


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" **Inception** is a film.\nTitle: Next", "Inception is a film."),
        ("Description: A thief dreams.", "A thief dreams."),
        ('"A thief dreams."', "A thief dreams."),
        ("Here is a description:\n\nA thief dreams.", "A thief dreams."),
        ("<p>A thief &amp; a <b>dream</b>.</p>", "A thief & a dream ."),
        ("A\x00 thief\x1b dreams.\u200b", "A thief dreams."),
        ("# Title\n- A thief dreams.", "Title A thief dreams."),
        ("A thief dreams. Then he", "A thief dreams."),
        ("A thief dreams. A thief dreams. He wakes.", "A thief dreams. He wakes."),
        ("One. Two. Three. Four. Five.", "One. Two. Three. Four."),
        ("Itâ€™s a dream.", "It's a dream."),
        ("no end at all", ""),
        ("", ""),
    ],
)
def test_answers_become_plain_prose(answer: str, expected: str) -> None:
    assert cleaning.clean(answer) == expected


@given(st.text(max_size=200))
def test_cleaning_never_fails_and_leaves_no_control_characters(answer: str) -> None:
    assert not any(unicodedata.category(c)[0] == "C" for c in cleaning.clean(answer))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Strange meets J. K. Rowling. They talk.", ["Dr. Strange meets J. K. Rowling.", "They talk."]),
        ("Is it plan B.", ["Is it plan B."]),
        ("He races on Mt.", []),
        ('He said "stop." She ran!', ['He said "stop."', "She ran!"]),
    ],
)
def test_sentences_end_where_they_end(text: str, sentences: list[str]) -> None:
    assert cleaning.whole_sentences(text) == sentences


def test_a_possessive_ends_as_its_language_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cleaning.words("The sailor's dog, Nolan’s") == ["the", "sailor", "dog", "nolan"]
    bare = languages.language("german").model_copy(update={"possessives": ()})
    monkeypatch.setattr(languages, "language", lambda name: bare)
    cleaning._possessive.cache_clear()
    assert cleaning.words("Hans's Hund", "german") == ["hans's", "hund"]
    cleaning._possessive.cache_clear()
