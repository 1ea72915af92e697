import pytest

from matinee.languages.folding import fold


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Amélie", "amelie"),
        ("Schindler's List", "schindlers list"),
        ("  WALL·E ", "wall e"),
        ("Fast & Furious", "fast and furious"),
        ("Straße", "strasse"),
        ("!!!", "!!!"),
        ("千と千尋", "千と千尋"),
        ("", ""),
        ("M*A*S*H", "m a s h"),
        ("Йод, ёлка", "иод елка"),
        ("שָׁלוֹם", "שלום"),
        ("soft\u00adhy\u200bphen", "softhyphen"),
    ],
)
def test_a_title_is_folded(title: str, expected: str) -> None:
    assert fold(title) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("मेला", "माली"), ("दिल", "दाल"), ("กา", "กี"), ("カンダム", "ガンダム"), ("தமிழ்", "தமழ"), ("கடல்", "கடலி"), ("บ้าน", "บ่าน")],
)
def test_vowels_tones_and_voicing_make_another_word(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("می\u200cروم", "میروم"), ("क्\u200dष", "क्ष"), ("é", "e\u0301"), ("👨\u200d🚀 Up", "up"), ("ÅNGSTRÖM", "a\u030angstro\u0308m")],
)
def test_what_is_written_in_two_ways_is_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("title", "expected"), [("M*A*S*H", "mash"), ("S.W.A.T. Firefight", "swat firefight"), ("Spider-Man", "spiderman"), ("WALL·E", "walle")]
)
def test_punctuation_can_be_left_out(title: str, expected: str) -> None:
    assert fold(title, joined=True) == expected
