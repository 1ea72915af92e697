"""No text that a client or a model can send stops a process: every expression of the product, and every function that reads long texts.

`re` holds the interpreter's lock while it matches, so a slow expression stops all threads. Time must be linear.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter

from matinee.catalogue import cells, columns, dates, lists, numerals
from matinee.characters import tidy
from matinee.evaluation.splits import franchise
from matinee.items import Item
from matinee.languages.folding import fold
from matinee.models.bm25 import title_trigrams
from matinee.text import cleaning, fact_checks, qualifiers
from matinee.text.templates import join_sentences
from tests.matinee.linear_time import LENGTH, Shape, is_linear
from tests.matinee.product_patterns import FOLDERS, ROOT, Pattern, hard_texts, product_patterns

PATTERNS = product_patterns()


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.where)
def test_every_expression_takes_linear_time(pattern: Pattern) -> None:
    shapes = sorted(hard_texts(pattern), key=repr)
    assert shapes
    slow = [(method, shape) for method, run in pattern.asked() for shape in shapes if not is_linear(run, shape)]
    assert not slow, f"{pattern.text} takes more than linear time on {slow[:3]}"


def test_the_expressions_are_found() -> None:
    found = {(pattern.where.partition(":")[0], method) for pattern in PATTERNS for method in pattern.methods}
    # Compiled and used elsewhere, in a tuple, in a mapping, inline, put together when it runs.
    assert {
        ("matinee/text/cleaning.py", "finditer"),
        ("matinee/catalogue/numerals.py", "fullmatch"),
        ("matinee/text/fact_checks.py", "search"),
        ("matinee/evaluation/splits.py", "split"),
        ("train/embedding/pairs.py", "sub"),
    } <= found
    written = sum(len(re.findall(r"\bre\.compile\(", path.read_text())) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(PATTERNS) >= written > 30


@pytest.mark.parametrize(
    ("text", "method", "flags"),
    [
        (r"(?P<name>.*\w.*?)[\s,]*[\s,(\[](?P<year>(?:18|19|20)\d\d)[)\]]?\s*", "fullmatch", 0),
        (r"[.!?…]+[\"'”’)]*(?=\s+[\"'“‘(]?[A-Z0-9À-Þ]|\s*$)", "finditer", 0),
        (r"\balpha\b[^.]*beta", "search", 0),
        (r"\n\s*(?:Title|Kind):", "split", 0),
        (r"^\s*(?:#{1,6}\s+|\d+[.)]\s+)", "sub", re.MULTILINE),
        (r"(\d{4})\s*[-–—]\s*(?:\d{2,4}|[^\W\d_]*)\s*", "fullmatch", 0),
        (r"(?<=://)\S*@", "sub", 0),
        (r"(layers\..+)\.lora_([AB])\b.*weight$", "search", 0),
        (r"\s+$", "sub", 0),
        (r"\((?P<type>[^)]+)\)", "search", 0),
    ],
)
def test_slow_expressions_are_recognised(monkeypatch: pytest.MonkeyPatch, text: str, method: str, flags: int) -> None:
    """Those that the product once had, and two of every textbook."""
    monkeypatch.setattr("tests.matinee.linear_time._LIMIT_S", 0.2)
    pattern = Pattern("here", text, flags, (method,))
    [(_, run)] = pattern.asked()
    assert any(not is_linear(run, shape) for shape in sorted(hard_texts(pattern), key=repr))


def test_patterns_of_fields_are_matched_by_an_engine_without_backtracking() -> None:
    code = {path: path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert not [path for path, text in code.items() if "regex_engine" in text]
    field: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=r"^(a+)+$")])
    with pytest.raises(ValueError, match="should match pattern"):
        field.validate_python("a" * LENGTH + "!")


# The functions.

UNITS = [
    *(".", "…", "'", '."', ". ", "! A", "Mr. ", "A. ", " ", "\n", " \n", "\n\n", "\t", "a", "a ", "A ", "a,", ",", "a-", "-", "- ", "1. "),
    *("1999", "1999 ", "1999, ", "1,", "0", "1 2 ", "(", ")", "[", "<", "<a", "<a>", "&", "&amp;", "*", "`", "#", "# ", "|", "://", "@"),
    *("directed ", "Directed by A ", "Book A de ", "stars A. ", "comedy film ", "novel ", "Ann Bob ", "Ann-Bob-", "part 1 ", "ii ", "the "),
    *(
        "Title: ",
        "\nTitle:",
        "é",
        "Ã©",
        "ï¬",
        "\u0301",
        "日",
        "’s ",
        "A",
        "े",
        "\u200d",
        "\u00ad",
        "'a' ",
        "'a',",
        "[",
        "{",
        "\\",
        '"',
        "(#1)",
        ", The ",
        "(a) ",
    ),
]


# Marks of two classes, which normalising sorts: one after the other, in turns, as entities, and letters that become marks.
PAIRS = [("\u0301", "\u0316"), ("\u0301\u0316",), ("&#x301;", "&#x316;"), ("\uff9e", "\u0316"), ("\u0301", "\uff9e")]


def _item(overview: str) -> Item:
    return Item(title="Heat", year=1995, genres=("Crime",), people={"director": ("Michael Mann",)}, overview=overview.strip()[:20_000])


SENTENCE = "Written and directed by Xavier Young, it stars Zoe Quill, a comedy film of 1999."
FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "whole_sentences": cleaning.whole_sentences,
    "clean": cleaning.clean,
    "words": cleaning.words,
    "loops": cleaning.loops,
    "violations": lambda text: fact_checks.violations(text, _item("A thief and a detective.")),
    "violations of an overview": lambda text: fact_checks.violations(f"{SENTENCE} {SENTENCE}", _item(text)),
    "violations of both": lambda text: fact_checks.violations(text, _item(text)),
    "grounded_part": lambda text: fact_checks.grounded_part(text, _item(text)),
    "adherence": lambda text: fact_checks.adherence(text, _item(text)),
    "franchise": franchise,
    "fold": lambda text: [fold(text), fold(text, joined=True)],
    "tidy": tidy,
    "forms of titles": qualifiers.forms,
    "lists": lambda text: [lists.read_list(f"{a}{text}{b}") for a, b in ("[]", "{}", "()")] + [lists.read_list(f"c({text})")],
    "prose": cells.as_long_text,
    "title_trigrams": title_trigrams,
    "join_sentences": join_sentences,
    "years": lambda text: [dates._whole_year(text), dates._short(text)],
    "numbers": lambda text: numerals.shape(numerals._GAPS.sub("", text)),
    "repair": cells.repair,
    "column names": lambda text: [columns.squash(text), columns.key(text)],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_long_texts_take_linear_time(name: str) -> None:
    shapes = [*((unit,) for unit in UNITS), *PAIRS]
    # A step of Python takes so long that less text tells.
    assert not [units for units in shapes if not is_linear(FUNCTIONS[name], Shape(units, "A", "x"), LENGTH // 2)]
