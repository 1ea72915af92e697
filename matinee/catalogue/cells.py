"""Cells: one raw value becomes a clean text, a list of names or a fact.

Texts are repaired with ftfy (mojibake, HTML entities, control characters) and their white space is collapsed; curly quotes, ligatures and
wide characters stay as the catalogue wrote them. Does not know columns (`columns`), dates (`dates`) or number formats (`numerals`).
"""

import html
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import ftfy

from matinee import languages
from matinee.catalogue.lists import read_list
from matinee.characters import normalize, tidy
from matinee.errors import kind_of

_REPAIR = ftfy.TextFixerConfig(
    unescape_html=True, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, normalization=None
)
# What ftfy could never change, so that most texts skip it.
_CLEAN = re.compile(r"[\x20-\x25\x27-\x7e\t\n\r]*")
_NOTHING = frozenset(
    ("", "null", "none", "nan", "n/a", "na", "nil", "\\n", "-", "--", "?", "#n/a", "<na>", "nat", "[]", "{}", "character(0)")
)
_PLACEHOLDERS = languages.catalogue_words().placeholders
_AROUND = " \t\n\r()[]<>.!"
# The entry of an object that says what it is called, best first.
_NAME_KEYS = ("name", "title", "label", "value", "description", "text", "tag", "#text")
_NUMBER_KEYS = ("average", "value", "score", "rating", "amount", "count", "total")
_LANGUAGE = re.compile(r"[a-zA-Z]{2}(?:[-_][a-zA-Z]{2,4})?|english|romaji|native")
_TAG = re.compile(r"</?(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]{0,1000})?>")
_INLINE = frozenset(("a", "abbr", "b", "cite", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"))
# A separator as other scripts write it.
_SAME = {",": "，、", ";": "；", "|": "｜"}
_CRUMB = re.compile(r" >{1,3} ")


class CellError(ValueError):
    """A value that can't be what its column promises; the message says why."""


def is_nothing(value: object) -> bool:
    """Whether a cell holds no value: empty, NaN, or one of the words that programs write instead."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    if isinstance(value, str):
        return value.strip().casefold() in _NOTHING
    return isinstance(value, list | tuple | dict) and not value


def is_blank(value: object) -> bool:
    """Whether nothing at all stands in a cell: `None` may be a title."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def is_placeholder(value: object) -> bool:
    """Whether a cell of an optional field says that its value is not known. Never asked of titles: `Unknown` is a film."""
    if isinstance(value, str) and value[:1].isdigit():
        return False
    if is_nothing(value):
        return True
    return isinstance(value, str) and len(value) < 80 and " ".join(value.casefold().strip(_AROUND).split()) in _PLACEHOLDERS


def as_text(value: Any) -> str:
    """A plain value as text. A list of one is its entry, an object is what it is called; others are refused."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | date):
        return str(value)
    if isinstance(value, list | tuple) and len(value) == 1:
        return as_text(value[0])
    if isinstance(value, Mapping):
        return by_language(value) or as_text(entry(value, _NAME_KEYS))
    if isinstance(value, bytes):
        raise CellError("holds bytes, not a text")
    if isinstance(value, list | tuple):
        raise CellError(f"holds {kind_of(value)}, not a text")
    return str(value)


def by_language(value: Any) -> str | None:
    """One text of `{"de": "Hitze", "en": "Heat"}`: in `first_language`, else the first; None for anything else."""
    if not isinstance(value, Mapping) or not all(map(_LANGUAGE.fullmatch, map(str, value))) or value.keys() == {"id"}:
        return None
    texts = {str(key): text for key, text in value.items() if isinstance(text, str) and not is_nothing(text)}
    first = languages.catalogue_words().first_language
    return next((text for key, text in texts.items() if key[:2].casefold() == first), next(iter(texts.values()), None))


def as_long_text(value: Any) -> str:
    """A long text: the paragraphs of a list are joined, HTML markup is left out."""
    text = " ".join(map(as_long_text, value)) if isinstance(value, list | tuple) else as_text(value)
    if "<" not in text:
        return text
    return _TAG.sub(lambda tag: "" if tag["name"].casefold() in _INLINE else " ", text)


def number_of(value: Any) -> Any:
    """The number that an object such as `{"average": 6.5}` holds; other values as they are."""
    if not isinstance(value, Mapping):
        return value
    return entry(value, _NUMBER_KEYS)


def entry(value: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of these entries that the object has."""
    for key in keys:
        if key in value:
            return value[key]
    raise CellError(f"holds an object without {keys[0]}: {str(value)[:80]}")


def repair(text: str) -> tuple[str, bool]:
    """The clean text, and whether mojibake was in it."""
    if _CLEAN.fullmatch(text):
        return " ".join(text.split()), False
    if "\0" in text:
        raise CellError("holds a NUL byte")
    fixed = normalize("NFC", ftfy.fix_text(text, _REPAIR))
    broken = fixed != text and not text.isascii() and ftfy.fix_encoding(text, _REPAIR) != text
    return " ".join(fixed.split()), broken


def shorten(text: str, limit: int) -> str:
    """The text within a limit of characters, cut between two words."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    return f"{head.rpartition(' ')[0] or head}…"


def as_names(value: Any, separator: str | None) -> list[str]:
    """Names: of a list or an object, of one that a program printed as text, or of a text that is split at `separator` and line ends."""
    if is_nothing(value):
        return []
    if isinstance(value, str):
        # An entity's semicolon separates nothing.
        text = html.unescape(value).strip() if "&" in value else value.strip()
        listed = read_list(text)
        if listed is not None:
            return as_names(listed, None)
        if text[0] + text[-1] in ("[]", "{}"):
            raise CellError(f"looks like a list, but can't be read: {text[:80]!r}")
        if separator is not None:
            for sign in _SAME.get(separator, ""):
                text = text.replace(sign, separator)
        pieces = [piece for line in text.splitlines() for piece in (line.split(separator) if separator else [line])]
        return [piece for piece in pieces if piece.strip()]
    if isinstance(value, Mapping):
        return _names_of(value)
    if isinstance(value, list | tuple):
        return [_name(entry) for entry in value if not is_nothing(entry)]
    return [as_text(value)]


def split_crumbs(names: list[str]) -> list[str]:
    """`Home > Lighting > Lamps` as three names."""
    return [part for name in names for part in _CRUMB.split(name)]


def _name(value: Any) -> str:
    if not isinstance(value, Mapping):
        return as_text(value)
    for key in _NAME_KEYS:
        if key in value:
            return as_text(value[key])
    raise CellError(f"lists objects without a name: {str(value)[:80]}")


def _names_of(value: Mapping[str, Any]) -> list[str]:
    """The names in an object: its own, those that have a weight or `true`, or those behind its keys."""
    if any(key in value for key in _NAME_KEYS):
        return [_name(value)]
    filled = {key: entry for key, entry in value.items() if not is_nothing(entry)}
    if all(isinstance(entry, bool | int | float) for entry in filled.values()):
        return [str(key) for key, entry in filled.items() if entry]
    return [_name(entry) for entry in filled.values()]


def separator_in(value: Any) -> str | None:
    """What separates several words in one short text, such as `English, Hindi`."""
    return next((sign for sign in "|;,/" if isinstance(value, str) and sign in value), None)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names without blanks and repetitions."""
    return tuple(dict.fromkeys(name for name in map(str.strip, map(tidy, names)) if name))
