"""Cells: one raw value becomes a clean text, a list of names or a fact.

Texts are repaired with ftfy (mojibake, HTML entities, control characters) and their white space is collapsed; curly quotes, ligatures and
wide characters stay as the catalogue wrote them. Does not know columns (`columns`), dates (`dates`) or number formats (`numerals`).
"""

import ast
import json
import re
from datetime import date
from typing import Any

import ftfy

_REPAIR = ftfy.TextFixerConfig(unescape_html=True, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False)
# What ftfy could never change, so that most texts skip it.
_CLEAN = re.compile(r"[\x20-\x25\x27-\x7e\t\n\r]*")
_NOTHING = frozenset(("", "null", "none", "nan", "n/a", "na", "nil", "\\n", "-", "--", "?", "#n/a", "<na>", "nat", "[]", "{}"))
_NAME_KEYS = ("name", "title", "label", "value")


class CellError(ValueError):
    """A value that can't be what its column promises; the message is the reject's reason."""


def is_nothing(value: object) -> bool:
    """Whether a cell holds no value: empty, NaN, or one of the words that programs write instead."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    if isinstance(value, str):
        return value.strip().casefold() in _NOTHING
    return isinstance(value, list | tuple | dict) and not value


def as_text(value: Any) -> str:
    """A plain value as text; lists and mappings are refused."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | date):
        return str(value)
    if isinstance(value, list | tuple | dict | bytes):
        raise CellError(f"holds a {type(value).__name__}, not a text")
    return str(value)


def repair(text: str) -> tuple[str, bool]:
    """The clean text, and whether mojibake was in it."""
    if _CLEAN.fullmatch(text):
        return " ".join(text.split()), False
    if "\0" in text:
        raise CellError("holds a NUL byte")
    fixed = ftfy.fix_text(text, _REPAIR)
    broken = fixed != text and not text.isascii() and ftfy.fix_encoding(text, _REPAIR) != text
    return " ".join(fixed.split()), broken


def as_names(value: Any, separator: str | None) -> list[str]:
    """A list of names: from a list, from JSON (or Python) written as text, or from text split at `separator`."""
    if is_nothing(value):
        return []
    if isinstance(value, str):
        text = value.strip()
        if text[0] == "[" and text[-1] == "]":
            return as_names(_literal(text), None)
        return [part for part in (text.split(separator) if separator else [text]) if part.strip()]
    if isinstance(value, list | tuple):
        return [_name(entry) for entry in value if not is_nothing(entry)]
    if isinstance(value, dict):
        return [_name(value)]
    return [as_text(value)]


def _literal(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise CellError(f"looks like a list, but can't be read: {text[:80]!r}") from None
    if not isinstance(value, list):
        raise CellError(f"holds a {type(value).__name__}, not a list: {text[:80]!r}")
    return value


def _name(entry: Any) -> str:
    if not isinstance(entry, dict):
        return as_text(entry)
    for key in _NAME_KEYS:
        if key in entry:
            return as_text(entry[key])
    raise CellError(f"lists objects without a name: {str(entry)[:80]}")
