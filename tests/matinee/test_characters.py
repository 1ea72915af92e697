import pytest

from matinee.characters import tidy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301", "é"),
        ("Mat\u00adrix\u200b", "Matrix"),
        ("\u200eWinter\u202a Lane\u202c", "Winter Lane"),
        ("\ufeffstart", "start"),
        ("می\u200cروم 👨\u200d🚀", "می\u200cروم 👨\u200d🚀"),
        ("plain", "plain"),
    ],
)
def test_texts_are_in_one_form_without_what_nobody_sees(text: str, expected: str) -> None:
    assert tidy(text) == expected
    assert tidy(expected) == expected
