import pytest

from matinee.text.qualifiers import TitleForm, forms, title_year


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Harbour (1995)", 1995),
        ("Harbour [1995] ", 1995),
        ("Harbour (2003-2005)", 2003),
        ("Harbour (2009– )", 2009),
        ("Harbour 1995", None),
        ("(1995)", None),
        ("Harbour (1995) again", None),
        ("Harbour (3001)", None),
        ("2012 (2009)", 2009),
    ],
)
def test_a_year_in_brackets_at_the_end_is_the_years(title: str, year: int | None) -> None:
    assert title_year(title) == year


@pytest.mark.parametrize(
    ("title", "whole", "others"),
    [
        ("Harbour", ["Harbour"], []),
        ("Quay, The (1999)", ["Quay, The (1999)", "The Quay", "Quay, The"], []),
        ("Aventure, L'", ["Aventure, L'", "L'Aventure"], []),
        (
            "Clerk, The (Le commis) (2001)",
            ["Clerk, The (Le commis) (2001)", "Clerk, The (Le commis)"],
            ["The Clerk", "Clerk, The", "Le commis"],
        ),
        ("Embers (The Lamp Cycle, #2)", ["Embers (The Lamp Cycle, #2)", "Embers"], []),
        ("Ferry (a.k.a. Night Ferry)", ["Ferry (a.k.a. Night Ferry)"], ["Ferry", "Night Ferry"]),
        ("(500) Nights", ["(500) Nights"], []),
    ],
)
def test_a_title_has_forms_without_its_qualifiers(title: str, whole: list[str], others: list[str]) -> None:
    assert forms(title) == [*(TitleForm(name, True) for name in whole), *(TitleForm(name, False) for name in others)]
